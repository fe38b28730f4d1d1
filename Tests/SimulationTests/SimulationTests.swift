import FuzzTargets
import TestSupport
import Testing

@Suite("Client against server over a faulty pipe")
struct SimulationTests {
    /// `APUS_SEEDS=0-4999` runs more of them, `APUS_SEEDS=17` one.
    static let seeds = SeededGenerator.seeds(0...999)

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
