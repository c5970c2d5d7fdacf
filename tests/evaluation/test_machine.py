from hf_tagger.evaluation.machine import describe_machine


def test_machine_is_plain_data_of_this_machine():
    machine = describe_machine()
    assert machine["cores"] >= 1 and machine["threads"] >= 1 and machine["cpu"]
    assert 0.5 < machine["memory_gb"] < 100_000 and machine["load_average"] >= 0
    assert machine["bf16_is_fast"] in (True, False)
