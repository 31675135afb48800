from dream_cad.benchmark import ABTester, ABTestConfig, ModelBenchmark

# Setup
tester = ABTester()
config = ABTestConfig(
    model_a="triposr",
    model_b="stable-fast-3d",
    test_prompts=["chair", "table", "lamp"],
    num_samples_per_prompt=5
)

# Create benchmarks
benchmark_a = ModelBenchmark("triposr")
benchmark_b = ModelBenchmark("stable-fast-3d")

# Run test
result = tester.run_ab_test(config, benchmark_a, benchmark_b)
print(f"Winner: {result.winner}")
print(f"Statistical significance: {result.p_value}")
