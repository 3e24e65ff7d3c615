import Glibc

/// A program of the operator's, which is run when there is something to do: it is looked at when the configuration is read.
package enum ProgramFile {
    /// Why it could not be run now, and what to do; `nil` if it could.
    package static func fault(_ path: String) -> (problem: String, fix: String)? {
        var status = stat()
        guard stat(path, &status) == 0 else {
            return ("cannot be run: \(systemMessage(errno))", "put the program there, or write the path of another one")
        }
        switch status.st_mode & S_IFMT {
        case S_IFREG: break
        case S_IFDIR: return ("is a directory", "write the path of a program in it")
        default: return ("is not a file", "write the path of a program")
        }
        // The effective user's rights, which are those that a program is started with.
        guard faccessat(AT_FDCWD, path, X_OK, AT_EACCESS) == 0 else {
            return ("cannot be run: \(systemMessage(errno))", "run chmod +x on it, or give this user access")
        }
        return nil
    }
}

extension ConfigurationReader {
    /// A warning and no fault: what runs without the program goes on being served.
    mutating func warnUnlessRunnable(_ path: String, _ setting: Setting) {
        guard let fault = input.programFault(path) else { return }
        report.warnings.append(setting.fault("\(LogText.escape(path)) \(fault.problem)", fix: fault.fix))
    }
}
