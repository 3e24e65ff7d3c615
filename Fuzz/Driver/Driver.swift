import FuzzTargets
import Glibc

/// libFuzzer on the target that KAKUREMICHI_FUZZ_TARGET names.
@main enum Driver {
    static func main() {
        let name = getenv("KAKUREMICHI_FUZZ_TARGET").map { String(cString: $0) } ?? ""
        guard FuzzTarget(rawValue: name) != nil else {
            print("KAKUREMICHI_FUZZ_TARGET is one of \(FuzzTarget.allCases.map(\.rawValue).joined(separator: ", "))")
            exit(2)
        }
        var count = CommandLine.argc
        var arguments: UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>? = CommandLine.unsafeArgv
        exit(runDriver(&count, &arguments, fuzzOneInput))
    }

    static let target = FuzzTarget(rawValue: getenv("KAKUREMICHI_FUZZ_TARGET").map { String(cString: $0) } ?? "")
}

/// What libFuzzer calls for each input.
@_cdecl("LLVMFuzzerTestOneInput")
public func fuzzOneInput(_ bytes: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
    Driver.target?.run(Array(UnsafeBufferPointer(start: bytes, count: count)))
    return 0
}

/// libFuzzer's entry point for programs that have a `main` of their own.
@_silgen_name("LLVMFuzzerRunDriver")
private func runDriver(
    _ count: UnsafeMutablePointer<CInt>, _ arguments: UnsafeMutablePointer<UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>?>,
    _ body: @convention(c) (UnsafePointer<UInt8>?, Int) -> CInt
) -> CInt
