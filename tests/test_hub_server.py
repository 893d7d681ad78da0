"""The Hub's stand-in answers the installed huggingface_hub as the Hub does, and fails as it fails."""

import random
from pathlib import Path

import pytest
from hub_server import READ_TOKEN, Fault, Hub, hub
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, constants
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

LARGE = random.Random(0).randbytes(300_000)  # bytes of a file of LFS


@pytest.fixture
def server(monkeypatch) -> Hub:
    for name, value in {"HF_HUB_OFFLINE": False, "HF_HUB_DISABLE_XET": True}.items():
        monkeypatch.setattr(constants, name, value)
    waits = type("waits", (), {"sleep": lambda seconds: None, "time": lambda: 0.0})
    for module in ("utils._http", "file_download"):
        monkeypatch.setattr(f"huggingface_hub.{module}.time", waits)  # of its retries
    with hub({}) as running:
        yield running


def api_of(server: Hub, token: str | bool = "hf_right") -> HfApi:
    return HfApi(endpoint=server.url, token=token)


def adding(**files: bytes) -> list[CommitOperationAdd]:
    """Files by name, in which __ stands for a dot."""
    return [CommitOperationAdd(name.replace("__", "."), content) for name, content in files.items()]


def test_what_is_committed_is_listed_and_downloaded(server, tmp_path) -> None:
    api, server.part_size, server.page_size = api_of(server), 100_000, 2
    assert api.whoami()["name"] == "me"
    assert api.create_repo("mine", private=True).repo_id == "me/mine"
    added = adding(card__md=b"# Mine", model__safetensors=LARGE, small__safetensors=b"123")
    pushed = api.create_commit(
        "me/mine", [*added, CommitOperationAdd("encoder/config.json", b"{}")], commit_message="Push"
    )
    assert set(api.list_repo_files("me/mine")) == {
        ".gitattributes", "card.md", "encoder/config.json", "model.safetensors", "small.safetensors",
    }  # fmt: skip
    folders = [entry.path for entry in api.list_repo_tree("me/mine") if not hasattr(entry, "size")]
    assert folders == ["encoder"]
    assert sum("PUT" in request for request in server.requests) == 3 + 1  # three parts, and one file
    for name, content in {"model.safetensors": LARGE, "encoder/config.json": b"{}"}.items():
        assert Path(api.hf_hub_download("me/mine", name, cache_dir=tmp_path)).read_bytes() == content
    assert api.model_info("me/mine").sha == pushed.oid and api.model_info("me/mine").private
    (info,) = api.get_paths_info("me/mine", "model.safetensors")
    assert info.size == len(LARGE) and info.lfs.sha256 in server.stored

    deleted = [CommitOperationDelete("encoder/"), CommitOperationDelete("card.md")]
    api.create_commit("me/mine", [*deleted, *adding(model__safetensors=LARGE)], commit_message="Less")
    assert server.files.keys() == {".gitattributes", "model.safetensors", "small.safetensors"}
    assert Path(api.hf_hub_download("me/mine", "card.md", revision=pushed.oid, cache_dir=tmp_path)).is_file()
    assert [commit["summary"] for commit in server.commits] == ["Push", "Less"]


def test_branches_and_pull_requests(server) -> None:
    api = api_of(server)
    api.create_repo("me/mine")
    api.create_branch("me/mine", branch="try/this")
    api.create_commit("me/mine", adding(a__txt=b"a"), commit_message="A", revision="try/this")
    first = api.model_info("me/mine").sha
    request = api.create_commit("me/mine", adding(b__txt=b"b"), commit_message="B", create_pr=True, parent_commit=first)
    assert request.pr_revision == "refs/pr/1" and api.file_exists("me/mine", "b.txt", revision="refs/pr/1")
    assert "b.txt" not in server.files and "a.txt" in server.files_of("me/mine", "try/this")
    refs = api.list_repo_refs("me/mine", include_pull_requests=True)
    assert {ref.name for ref in refs.branches} == {"main", "try/this"} and refs.pull_requests[0].ref == "refs/pr/1"
    api.create_commit("me/mine", adding(c__txt=b"c"), commit_message="C", parent_commit=first)
    with pytest.raises(HfHubHTTPError, match="412"):
        api.create_commit("me/mine", adding(d__txt=b"d"), commit_message="D", parent_commit=first)
    api.delete_branch("me/mine", branch="try/this")
    with pytest.raises(RevisionNotFoundError):
        api.list_repo_files("me/mine", revision="try/this")


def test_spaces_and_datasets_stand_beside_models(server, tmp_path) -> None:
    api = api_of(server)
    for kind in ("model", "dataset", "space"):
        api.create_repo("me/mine", repo_type=kind, space_sdk="gradio" if kind == "space" else None)
        api.create_commit("me/mine", adding(kind__txt=kind.encode()), commit_message=kind, repo_type=kind)
    for kind in ("model", "dataset", "space"):
        file = api.hf_hub_download("me/mine", "kind.txt", repo_type=kind, cache_dir=tmp_path)
        assert Path(file).read_text() == kind
    api.delete_repo("me/mine", repo_type="space")
    assert not api.repo_exists("me/mine", repo_type="space") and api.repo_exists("me/mine", repo_type="dataset")


def test_who_may_not_is_refused(server) -> None:
    api = api_of(server)
    api.create_repo("me/mine", private=True)
    with pytest.raises(HfHubHTTPError, match="409"):
        api.create_repo("me/mine")
    with pytest.raises(HfHubHTTPError, match="403"):
        api.create_repo("somebody/else")
    with pytest.raises(HfHubHTTPError, match="403"):
        api_of(server, READ_TOKEN).create_repo("me/other")
    with pytest.raises(HfHubHTTPError, match="401"):
        api_of(server, "hf_wrong").create_repo("me/other")
    with pytest.raises(RepositoryNotFoundError):
        api_of(server, False).model_info("me/mine")
    with pytest.raises(EntryNotFoundError):
        api.hf_hub_download("me/mine", "nothing.txt")
    server.add("me/open", {"a.txt": b"a"}).gated = True
    with pytest.raises(GatedRepoError):
        api_of(server, False).hf_hub_download("me/open", "a.txt")


@pytest.mark.parametrize("what", [500, 503, 429, "cut"])
def test_one_fault_is_overcome_by_the_client_and_six_are_not(server, what) -> None:
    api = api_of(server)
    api.create_repo("me/mine")
    server.faults = [Fault(what, "PUT /lfs/", times=6, headers={"Retry-After": "0"})]
    with pytest.raises(Exception, match="model.safetensors"):
        api.create_commit("me/mine", adding(model__safetensors=LARGE), commit_message="Push")
    assert server.files.keys() == {".gitattributes"} and not server.stored and not server.commits
    server.faults = [Fault(what, "PUT /lfs/", headers={"Retry-After": "0"})]
    api.create_commit("me/mine", adding(model__safetensors=LARGE), commit_message="Push")
    assert server.files["model.safetensors"] == LARGE


def test_a_download_that_is_cut_goes_on_where_it_stopped(server, tmp_path) -> None:
    server.add("me/mine", {"model.safetensors": LARGE})
    server.faults = [Fault("cut", "GET /lfs/")]
    file = api_of(server).hf_hub_download("me/mine", "model.safetensors", cache_dir=tmp_path)
    assert Path(file).read_bytes() == LARGE
    assert sum(request.startswith("GET /lfs/") for request in server.requests) == 2
