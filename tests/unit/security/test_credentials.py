import base64
from pathlib import Path

import pytest

from sdapi.errors import Unauthorized
from sdapi.security import Credentials
from sdapi.settings import Settings


def basic(text: str) -> str:
    return "Basic " + base64.b64encode(text.encode()).decode()


def credentials(**overrides: object) -> Credentials:
    return Credentials(Settings(data_dir=Path("/data"), **overrides))  # type: ignore[arg-type]


def refusal(checked: Credentials, authorization: str | None, service: str | None = None) -> str:
    with pytest.raises(Unauthorized) as caught:
        checked.check(authorization, service)
    return caught.value.detail


def test_without_credentials_the_server_is_open():
    open_server = credentials()
    assert open_server.is_open
    open_server.check(None)
    open_server.check("anything")


USERS = (("anna", "secret"), ("ben", "geheim-ä"))


def test_basic_auth_accepts_each_configured_user():
    checked = credentials(api_auth=USERS)
    assert not checked.is_open
    checked.check(basic("anna:secret"))
    checked.check(basic("ben:geheim-ä"))
    checked.check(basic("anna:secret").replace("Basic", "basic"))
    assert checked.user_of(basic("ben:geheim-ä")) == "ben"


@pytest.mark.parametrize(
    ("header", "text"),
    [
        (None, "Not authenticated"),
        ("", "Not authenticated"),
        ("Bearer secret", "Not authenticated"),
        (basic("anna:geheim-ä"), "Incorrect username or password"),
        (basic("anna:"), "Incorrect username or password"),
        (basic("carl:secret"), "Incorrect username or password"),
        (basic("anna"), "Invalid authentication credentials"),
        ("Basic", "Invalid authentication credentials"),
        ("Basic !!!", "Invalid authentication credentials"),
        ("Basic YW5uYTpzZWNyZXQ", "Invalid authentication credentials"),
    ],
)
def test_basic_auth_refuses_with_the_texts_clients_know(header: str | None, text: str):
    checked = credentials(api_auth=USERS)
    assert refusal(checked, header) == text
    assert checked.user_of(header) is None


def test_a_token_is_taken_bare_and_as_bearer():
    checked = credentials(token="tökén==")
    as_sent = "tökén==".encode().decode("latin-1")  # how a server hands the header on
    for header in ("tökén==", as_sent, f"Bearer {as_sent}", f"bearer  {as_sent}"):
        checked.check(header)
    assert refusal(checked, None) == "Not authenticated"
    for header in ("token", "Bearer token", basic("tökén==:"), "Bearer"):
        assert refusal(checked, header) == "Invalid authentication credentials"
    assert checked.user_of(as_sent) is None


def test_a_token_is_taken_as_the_password_of_any_user():
    checked = credentials(token="tökén==")
    for header in (basic("anna:tökén=="), basic(":tökén==")):
        checked.check(header)
        assert checked.user_of(header) is None
    for header in (basic("anna:tökén="), basic("tökén==:anna"), basic("anna:"), basic(":")):
        assert refusal(checked, header) == "Invalid authentication credentials"


def test_with_both_kinds_either_is_enough():
    checked = credentials(token="T", api_auth=USERS)
    checked.check("T")
    checked.check("Bearer T")
    checked.check(basic("anna:secret"))
    assert refusal(checked, basic("anna:x")) == "Incorrect username or password"
    assert refusal(checked, "Bearer x") == "Invalid authentication credentials"


def test_a_service_token_opens_its_service_only():
    checked = credentials(token="T", service_tokens={"one": "S"})
    checked.check("S", service="one")
    checked.check("T", service="one")
    assert refusal(checked, "S") == "Invalid authentication credentials"
    assert refusal(checked, "S", "two") == "Invalid authentication credentials"


def test_a_service_with_a_token_is_closed_on_an_open_server():
    checked = credentials(service_tokens={"one": "S"})
    checked.check(None)
    checked.check(None, service="two")
    assert refusal(checked, None, "one") == "Not authenticated"


def test_settings_do_not_show_credentials():
    shown = repr(Settings(data_dir=Path("/data"), token="geheim", api_auth=(("a", "geheim"),)))
    assert "geheim" not in shown
