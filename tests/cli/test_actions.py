"""The verbs about actions, on a store that the pipeline filled."""

from pathlib import Path

from tests.cli.conftest import document


def an_action(cli, config: Path) -> str:
    found = document(cli("actions", "list", "--config", config, "--json"))["actions"]
    return str(found[0]["firing_id"])


def test_why_tells_the_whole_story_of_an_action(cli, config: Path) -> None:
    name = an_action(cli, config)
    story = document(cli("why", name[:12], "--config", config, "--json"))
    assert story["firing_id"] == name
    assert {"outcomes", "approval", "effect", "reversals", "series", "group_name"} <= story.keys()
    assert {"model", "source", "quality", "observed", "levels", "forecast"} == story["why"]["basis"].keys()
    printed = cli("why", name, "--config", config).stdout
    for part in ("forecast", "rule and costs", "guards", "outcomes", "quality:"):
        assert part in printed


def test_only_what_was_applied_is_reverted(cli, config: Path) -> None:
    name = an_action(cli, config)
    refused = cli("actions", "revert", name, "--config", config)
    assert refused.exit_code != 0
    assert "was not applied" in refused.stderr
    assert cli("actions", "revert", "--config", config).exit_code == 2
    assert document(cli("actions", "revert", "--expired", "--config", config, "--json")) == {"reverted": []}


def test_a_verdict_is_for_firings_in_assist_only(cli, config: Path) -> None:
    for verb in ("approve", "reject"):
        refused = cli("actions", verb, an_action(cli, config), "--config", config)
        assert refused.exit_code != 0
        assert "mode assist" in refused.stderr
