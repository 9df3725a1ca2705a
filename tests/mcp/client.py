"""A client on the Python SDK: python client.py SERVER HOW CERTIFICATE KEY"""

import asyncio
import http.server
import json
import ssl
import sys
import threading
from urllib.parse import parse_qs, urlsplit

import httpx2
from mcp import ClientSession
from mcp.client.auth import AuthorizationCodeResult, OAuthClientProvider, TokenStorage
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import OAuthClientInformationFull, OAuthClientMetadata

SERVER, HOW, CERTIFICATE, KEY = sys.argv[1:]
CALLBACK = "http://127.0.0.1:40124/callback"
METADATA = {
    "client_name": "Python client",
    "redirect_uris": [CALLBACK],
    "grant_types": ["authorization_code", "refresh_token"],
    "response_types": ["code"],
    "token_endpoint_auth_method": "none",
}


def publish() -> str:
    """Where the metadata document of this client is."""

    class Document(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            body = json.dumps({"client_id": url, **METADATA}).encode()
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    host = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Document)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE, KEY)
    host.socket = context.wrap_socket(host.socket, server_side=True)
    url = f"https://127.0.0.1:{host.server_port}/client.json"
    threading.Thread(target=host.serve_forever, daemon=True).start()
    return url


class Storage(TokenStorage):
    def __init__(self):
        self.tokens = None
        self.client = None

    async def get_tokens(self):
        return self.tokens

    async def set_tokens(self, tokens):
        self.tokens = tokens

    async def get_client_info(self):
        return self.client

    async def set_client_info(self, client_info):
        self.client = client_info


class Browser:
    """Instead of a browser."""

    def __init__(self):
        self.authorizations = []

    async def open(self, url: str) -> None:
        self.authorizations.append(parse_qs(urlsplit(url).query))
        async with httpx2.AsyncClient() as client:
            response = await client.get(url)
        assert response.status_code in (302, 303), response.text
        self.answer = response.headers["location"]

    async def callback(self) -> AuthorizationCodeResult:
        assert self.answer.startswith(CALLBACK)
        answer = parse_qs(urlsplit(self.answer).query)
        one = lambda name: answer.get(name, [None])[0]
        return AuthorizationCodeResult(code=one("code"), state=one("state"), iss=one("iss"))


async def main() -> None:
    storage, browser = Storage(), Browser()
    if HOW == "registered":
        storage.client = OAuthClientInformationFull(client_id="notes-cli", **METADATA)
    provider = OAuthClientProvider(
        server_url=SERVER,
        client_metadata=OAuthClientMetadata(**METADATA),
        storage=storage,
        redirect_handler=browser.open,
        callback_handler=browser.callback,
        client_metadata_url=publish() if HOW == "document" else None,
    )
    async with httpx2.AsyncClient(auth=provider, timeout=30) as client:
        async with streamable_http_client(SERVER, http_client=client) as streams:
            async with ClientSession(streams[0], streams[1]) as session:
                # From the first 401 through discovery, registration and a code to a call.
                await session.initialize()
                asked = browser.authorizations[-1]
                assert asked["resource"] == [SERVER], asked
                assert asked["scope"] == ["notes:read"], asked
                client_id = storage.client.client_id
                kind = (
                    "registered" if client_id == "notes-cli"
                    else "document" if client_id.startswith("https://")
                    else "dynamic"
                )
                assert kind == HOW, client_id
                listed = await session.call_tool("list_notes", {})
                assert not listed.is_error, listed

                # A step-up by scope.
                added = await session.call_tool("add_note", {"text": f"tea for {HOW}"})
                assert not added.is_error, added
                assert len(browser.authorizations) == 2
                assert set(browser.authorizations[-1]["scope"][0].split()) == {"notes:read", "notes:write"}

                # A refresh, since the access token has ended.
                before = storage.tokens
                provider.context.token_expiry_time = 1
                listed = await session.call_tool("list_notes", {})
                assert f"tea for {HOW}" in listed.content[0].text, listed
                assert storage.tokens.refresh_token != before.refresh_token
                assert len(browser.authorizations) == 2, "nobody had to sign in"
    print(f"python {HOW}: ok")


asyncio.run(main())
