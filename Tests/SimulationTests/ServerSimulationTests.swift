import Testing

@Suite("A server and its clients on simulated loops")
struct ServerSimulationTests {
    @Test("every conversation ends once, with what it was sent, and nothing is left, for every seed")
    func seeds() {
        for seed in SimulationTests.seeds {
            do {
                try ServerSimulation(seed: seed).run()
            } catch {
                Issue.record("seed \(seed): \(error)")
            }
        }
    }

    @Test("equal seeds give equal runs")
    func determinism() throws {
        for seed in SimulationTests.seeds.prefix(30) {
            let runs = try (0..<2).map { _ in
                let simulation = try ServerSimulation(seed: seed)
                try simulation.run()
                return simulation.trace
            }
            let isEqual = runs[0] == runs[1]
            #expect(isEqual, "seed \(seed)")
        }
    }
}
