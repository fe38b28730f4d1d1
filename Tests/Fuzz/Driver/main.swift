// libFuzzer around one target, named by APUS_FUZZ_TARGET: an environment variable, because libFuzzer starts itself again for `-merge`.
// Built only with APUS_FUZZ set; `Tests/Tools/fuzz` does it.
import FuzzTargets
import Glibc

/// libFuzzer's own main, for programs that have one (llvm.org/docs/LibFuzzer.html#using-libfuzzer-as-a-library).
@_silgen_name("LLVMFuzzerRunDriver")
func runFuzzer(
    _ argumentCount: UnsafeMutablePointer<CInt>,
    _ arguments: UnsafeMutablePointer<UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>>,
    _ body: @convention(c) (UnsafePointer<UInt8>?, Int) -> CInt
) -> CInt

/// Global and optional: a C function captures nothing.
let target = FuzzTarget(rawValue: getenv("APUS_FUZZ_TARGET").map { String(cString: $0) } ?? "")
if target == nil {
    print(FuzzTarget.allCases.map(\.rawValue).joined(separator: "\n"))
    exit(getenv("APUS_FUZZ_TARGET") == nil ? 0 : 2)
}
var argumentCount = CommandLine.argc
var arguments = CommandLine.unsafeArgv
exit(
    runFuzzer(&argumentCount, &arguments) { bytes, count in
        target?.run(Array(UnsafeBufferPointer(start: bytes, count: count)))
        return 0
    })
