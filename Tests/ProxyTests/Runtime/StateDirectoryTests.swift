import Glibc
import Proxy
import Testing

@Suite struct StateDirectoryTests {
    private let temporary = TemporaryDirectory()

    private func problem(_ path: String) -> StateDirectoryError.Problem? {
        do {
            _ = try StateDirectory(path: path)
            return nil
        } catch {
            return error.problem
        }
    }

    @Test("it is made with mode 0700, and those above it too")
    func made() throws {
        let state = try StateDirectory(path: temporary.file("a/b/c/"))
        #expect(state.path == temporary.file("a/b/c"))
        #expect(TemporaryDirectory.mode(temporary.file("a/b/c")) == 0o700)
        #expect(TemporaryDirectory.mode(temporary.file("a")) == 0o700)
        #expect(TemporaryDirectory.mode(state.file("lock")) == 0o600)
    }

    @Test("a second holder is refused and told who holds it, until the first is gone")
    func locked() throws {
        let path = temporary.file("s")
        do {
            let first = try StateDirectory(path: path)
            #expect(problem(path) == .locked(processID: Int(getpid())))
            withExtendedLifetime(first) {}
        }
        #expect(problem(path) == nil)
        let text = StateDirectoryError(path: path, problem: .locked(processID: 12)).description
        #expect(text.contains("process 12") && text.contains("--state") && text.contains(path))
    }

    @Test("a default directory that another process holds is done without; one that was asked for is not")
    func openIfFree() throws {
        let path = temporary.file("s")
        let first = try StateDirectory.openIfFree(path, isGiven: false)
        #expect(first?.path == path)
        #expect(try StateDirectory.openIfFree(path, isGiven: false) == nil)
        #expect(throws: StateDirectoryError.self) { try StateDirectory.openIfFree(path, isGiven: true) }
        #expect(try StateDirectory.openIfFree(nil, isGiven: false) == nil)
        withExtendedLifetime(first) {}
    }

    @Test("links, files and directories open to others are refused")
    func refused() throws {
        let path = temporary.file("real")
        mkdir(path, 0o700)
        symlink(path, temporary.file("link"))
        #expect(problem(temporary.file("link")) == .symbolicLink)
        try SystemFiles.create(temporary.file("file"), [])
        #expect(problem(temporary.file("file")) == .notADirectory)
        #expect(problem(temporary.file("file/below")) == .system(ENOTDIR))
        chmod(path, 0o770)
        #expect(problem(path) == .writableByOthers)
    }
}

@Suite struct SystemFilesTests {
    private let temporary = TemporaryDirectory()

    @Test("a new file has mode 0600 and is never overwritten, not through a link either")
    func create() throws {
        let path = temporary.file("f")
        try SystemFiles.create(path, [1, 2])
        #expect(TemporaryDirectory.mode(path) == 0o600)
        #expect(throws: FileError(path: path, problem: .exists)) { try SystemFiles.create(path, [3]) }
        symlink(temporary.file("elsewhere"), temporary.file("link"))
        #expect(throws: FileError.self) { try SystemFiles.create(temporary.file("link"), [3]) }
        #expect(try SystemFiles.read(path).bytes == [1, 2])
        #expect(!SystemFiles.exists(temporary.file("elsewhere")))
    }

    @Test("a replaced file is whole, and what lay in the way is gone")
    func replace() throws {
        let path = temporary.file("f")
        try SystemFiles.create("\(path).new", [9])
        try SystemFiles.replace(path, [1])
        try SystemFiles.replace(path, [2, 3])
        #expect(try SystemFiles.read(path).bytes == [2, 3])
        #expect(TemporaryDirectory.mode(path) == 0o600)
        #expect(!SystemFiles.exists("\(path).new"))
    }

    @Test("reading tells of missing files, directories, sizes and open modes")
    func read() throws {
        #expect(throws: FileError(path: temporary.file("none"), problem: .system(.reading, ENOENT))) {
            try SystemFiles.read(temporary.file("none"))
        }
        #expect(throws: FileError(path: temporary.path, problem: .isDirectory)) { try SystemFiles.read(temporary.path) }
        let path = temporary.file("f")
        try SystemFiles.create(path, [UInt8](repeating: 0, count: SystemFiles.maximumSize + 1))
        #expect(throws: FileError(path: path, problem: .tooLarge(limit: SystemFiles.maximumSize))) { try SystemFiles.read(path) }
        try SystemFiles.create(temporary.file("g"), [])
        #expect(try !SystemFiles.read(temporary.file("g")).isWorldReadable)
        chmod(temporary.file("g"), 0o644)
        #expect(try SystemFiles.read(temporary.file("g")).isWorldReadable)
    }
}
