"""What is a secret in a text, under a key or in the environment, what is none, and that no text takes long."""

from __future__ import annotations

import time

import pytest

from svdtrain.foundation.secrets import HIDDEN, redacted

HEX40 = "0123456789abcdef0123456789abcdef01234567"
TEXTS = [
    ("https://me:pw@host/a.tar", f"https://{HIDDEN}@host/a.tar"),
    (
        "https://h/a?X-Amz-Credential=A/2&X-Amz-Signature=ab&x=1",
        f"https://h/a?X-Amz-Credential={HIDDEN}&X-Amz-Signature={HIDDEN}&x=1",
    ),
    ("https://h/a?sv=1&sig=ab%3D&y=2", f"https://h/a?sv=1&sig={HIDDEN}&y=2"),
    ("https://h/a.tar?token=abc", f"https://h/a.tar?token={HIDDEN}"),
    ("logger.api_key=abc seed=1", f"logger.api_key={HIDDEN} seed=1"),
    ("--hf-token abc --fast", f"--hf-token {HIDDEN} --fast"),
    ('{"password": "a b", "k": 1}', f'{{"password": "{HIDDEN}", "k": 1}}'),
    ("Authorization: Bearer abc.def", f"Authorization: Bearer {HIDDEN}"),
    ("a hf_abcdefghijklmnopqrst b", f"a {HIDDEN} b"),
    ("(sk-proj-abcdefghijklmnop)", f"({HIDDEN})"),
    ("ghp_abcdefghijklmnopqrst", HIDDEN),
    ("AKIAABCDEFGHIJKLMNOP", HIDDEN),
    (f"key {HEX40}", f"key {HIDDEN}"),
]
PLAIN = [
    "hf_hub_download and hf://datasets/me/clips@main/a.tar",
    "task-abcdefghijklmnopqrstuvwxyz",
    "git@github.com:a/b.git",
    "runs/style_lora/20260101-000000",
    f"model.revision={HEX40}",
    f"revision: {HEX40}",
    f"me/model@{HEX40}",
    "a" * 64,
    "data.source='file:///etc/passwd': file: addresses are refused",
    "keys (KEY=VALUE), password=null, key=clip-3",
    "model.source: there is no such key; did you mean 'x'?",
]


@pytest.mark.parametrize(("text", "expected"), TEXTS)
def test_a_secret_in_a_text_is_hidden_and_the_rest_is_kept(text: str, expected: str) -> None:
    assert redacted(text) == expected
    assert redacted(expected) == expected


@pytest.mark.parametrize("text", PLAIN)
def test_what_is_no_secret_stays(text: str) -> None:
    assert redacted(text) == text


def test_what_stands_under_a_secrets_name_is_hidden_at_any_depth() -> None:
    told = {"seed": 1, "wandb": {"api_key": "x", "token": 5, "secret": ["a", "b"]}, "key": "clip-1", "pass": True}
    hidden = {"seed": 1, "wandb": {"api_key": HIDDEN, "token": HIDDEN, "secret": [HIDDEN, HIDDEN]}, "key": "clip-1"}
    assert redacted(told) == hidden | {"pass": True}
    assert redacted({"revision": HEX40, "name": HEX40}) == {"revision": HEX40, "name": HIDDEN}
    assert redacted(("a", [None, 1.5, ("sk-abcdefghijklmnopqrst",)])) == ("a", [None, 1.5, (HIDDEN,)])
    assert redacted("plain", "access_token") == HIDDEN


def test_values_of_the_environments_secrets_are_hidden_wherever_they_stand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_PASSWORD", "correct horse")
    monkeypatch.setenv("SHORT_TOKEN", "1")
    monkeypatch.setenv("GIT_ASKPASS", "/bin/sh")
    assert redacted("a correct horse, 1 /bin/sh") == f"a {HIDDEN}, 1 /bin/sh"


@pytest.mark.parametrize("piece", ["-.", "a_", "eyJaaaaaaaa-", "a://", "token=", "https://a:", "'", "--key "])
def test_no_text_takes_long(piece: str) -> None:
    start = time.process_time()
    redacted(piece * (100_000 // len(piece)))
    assert time.process_time() - start < 3
