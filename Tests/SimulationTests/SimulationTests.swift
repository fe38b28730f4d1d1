import FuzzTargets
import Glibc
import Testing

@Suite("Client against server over a faulty pipe")
struct SimulationTests {
    /// `APUS_SEEDS=5000` runs more of them, `APUS_SEED=17` one.
    private static var seeds: Range<UInt64> {
        func number(_ name: String) -> UInt64? { getenv(name).flatMap { UInt64(String(cString: $0)) } }
        if let seed = number("APUS_SEED") { return seed..<seed + 1 }
        return 0..<(number("APUS_SEEDS") ?? 1000)
    }

    @Test("messages arrive intact, in order and once, and both sides end with the right code, for every seed")
    func seeds() {
        let deflate = DeflateConfigurations()
        for seed in Self.seeds {
            var simulation = Simulation(seed: seed, deflate: deflate)
            do {
                try simulation.run()
            } catch {
                Issue.record("seed \(seed): \(error)")
            }
        }
    }
}
