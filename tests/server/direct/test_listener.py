"""The port: who speaks what, who says nothing, and how all are let go."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest

from earshot.server.direct import frames as f
from earshot.server.direct import http1
from earshot.server.direct import listener as module
from earshot.server.direct.header_blocks import header_block
from earshot.server.direct.http2 import Http2Connection
from earshot.server.direct.listener import Listener
from earshot.server.run import listen

from .wire import POST, echo

pytestmark = pytest.mark.anyio

HTTP1 = b"POST /x HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\nabc"


@contextlib.asynccontextmanager
async def listening(app: Any = echo) -> AsyncIterator[tuple[Listener, int]]:
    with contextlib.closing(listen("127.0.0.1", 0)) as bound:
        listener = Listener(app)
        await listener.start(bound, None)
        try:
            yield listener, bound.getsockname()[1]
        finally:
            await listener.stop()


async def connect(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", port)


@pytest.mark.parametrize("first", [HTTP1, f.PREFACE + f.frame(f.SETTINGS, 0, 0)])
async def test_the_first_bytes_tell_what_is_spoken_even_one_by_one(first: bytes) -> None:
    async with listening() as (_, port):
        reader, writer = await connect(port)
        for place in range(len(first)):
            writer.write(first[place : place + 1])
            await writer.drain()
            await asyncio.sleep(0)
        said = await reader.readexactly(9)
        assert said.startswith(b"HTTP/1.1 ") if first is HTTP1 else said[3] == f.SETTINGS
        writer.close()


async def test_a_post_that_begins_as_the_preface_does_is_http_1() -> None:
    async with listening() as (_, port):
        reader, writer = await connect(port)
        for piece in (b"P", HTTP1[1:]):
            writer.write(piece)
            await asyncio.sleep(0.02)
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        writer.close()


async def test_who_says_nothing_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.02)
    monkeypatch.setattr(module, "SILENT_SECONDS", 0.1)
    async with listening() as (listener, port):
        reader, writer = await connect(port)
        with contextlib.suppress(ConnectionError):
            assert await asyncio.wait_for(reader.read(), 5) == b""
        writer.close()
        assert len(listener) == 0


async def test_clients_are_served_until_the_notice_is_over_and_the_port_is_closed_then() -> None:
    async with listening() as (listener, port):
        kept, silent = await connect(port), await connect(port)
        kept[1].write(HTTP1)
        assert b"connection: close" not in await kept[0].readuntil(b"POST abc")
        draining = asyncio.create_task(listener.drain(1.5, 10))
        await asyncio.sleep(0.05)
        late = await connect(port)
        late[1].write(HTTP1)
        assert b"connection: close" in await late[0].read()
        assert await draining
        assert await kept[0].read() == b""
        assert await silent[0].read() == b""
        with pytest.raises(OSError):  # refused
            await connect(port)
        for _, writer in (kept, silent, late):
            writer.close()


async def test_who_stays_too_long_is_told_of_and_ended() -> None:
    begun = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        begun.set()
        while (await receive())["type"] != "http.disconnect":
            pass

    async with listening(app) as (listener, port):
        reader, writer = await connect(port)
        writer.write(HTTP1)
        await begun.wait()
        assert not await listener.drain(0, 0.1)
        assert len(listener) == 1
        await listener.stop()
        assert len(listener) == 0
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""
        writer.close()


@pytest.mark.parametrize("version", ["1", "2"])
async def test_an_answer_arrives_whole_however_slowly_it_is_read_while_the_server_goes(
    version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.02)
    size = 20_000_000

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": bytes(size)})

    async with listening(app) as (listener, port):
        reader, writer = await connect(port)
        if version == "1":
            writer.write(HTTP1.replace(b"host", b"connection: close\r\nhost"))
        else:
            wide = f.frame(f.SETTINGS, 0, 0, f.setting(4, f.MAX_WINDOW))
            grant = f.window_update(0, f.MAX_WINDOW - f.INITIAL_WINDOW)
            block = header_block([(name.encode(), value.encode()) for name, value in POST])
            ask = f.frame(f.HEADERS, f.END_HEADERS | f.END_STREAM, 1, block)
            writer.write(f.PREFACE + wide + grant + ask)
        first = await reader.read(100)
        draining = asyncio.create_task(listener.drain(0.05, 20))
        await asyncio.sleep(0.5)
        rest = await reader.read()
        assert len(first) + len(rest) > size
        assert await draining
        writer.close()


async def test_many_that_come_at_once_are_all_answered() -> None:
    async with listening() as (_, port):

        async def ask() -> bytes:
            reader, writer = await connect(port)
            writer.write(HTTP1)
            said = await reader.readuntil(b"POST abc")
            writer.close()
            return said[:12]

        assert set(await asyncio.gather(*(ask() for _ in range(300)))) == {b"HTTP/1.1 200"}


async def test_a_client_that_resets_its_connection_is_forgotten() -> None:
    async with listening() as (listener, port):
        for _ in range(20):
            with socket.create_connection(("127.0.0.1", port)) as client:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                client.sendall(f.PREFACE + f.frame(f.SETTINGS, 0, 0))
                await asyncio.sleep(0.01)
        for _ in range(100):
            if not len(listener):
                break
            await asyncio.sleep(0.01)
        assert len(listener) == 0


@pytest.mark.parametrize("anyio_backend", [("asyncio", {"use_uvloop": loop}) for loop in (False, True)])
async def test_who_does_not_read_is_not_read_until_it_does() -> None:
    calls = 0

    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal calls
        calls += 1
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": bytes(1 << 18)})

    block = header_block([(name.encode(), value.encode()) for name, value in POST])

    def requests(first: int, count: int) -> bytes:
        streams = range(2 * first + 1, 2 * (first + count), 2)
        return b"".join(f.frame(f.HEADERS, f.END_HEADERS | f.END_STREAM, stream, block) for stream in streams)

    async with asyncio.timeout(30), listening(app) as (listener, port):
        reader, writer = await connect(port)
        wide = f.setting(f.INITIAL_WINDOW_SIZE, f.MAX_WINDOW)
        writer.write(f.PREFACE + f.frame(f.SETTINGS, 0, 0, wide))
        writer.write(f.window_update(0, f.MAX_WINDOW - f.INITIAL_WINDOW) + requests(0, 90))
        while not any(isinstance(it, Http2Connection) and it.is_full for it in listener._connections):
            await asyncio.sleep(0.01)
        writer.write(requests(90, 50))
        await asyncio.sleep(0.3)
        assert calls == 90
        ended = 0
        while ended < 140:
            high, low, kind, flags, _ = f.HEADER.unpack(await reader.readexactly(f.HEADER.size))
            await reader.readexactly(high << 8 | low)
            ended += kind == f.DATA and bool(flags & f.END_STREAM)
        assert calls == 140
        writer.close()


async def test_who_asked_lately_is_told_before_the_connection_closes() -> None:
    async with listening() as (listener, port):
        reader, writer = await connect(port)
        writer.write(HTTP1)
        assert b"connection: close" not in await reader.readuntil(b"POST abc")
        draining = asyncio.create_task(listener.drain(0.05, 10))
        await asyncio.sleep(0.3)  # kept from the processor, say
        writer.write(HTTP1)
        assert b"connection: close" in await reader.readuntil(b"POST abc")
        assert await reader.read() == b""
        assert await draining
        writer.close()


async def test_who_said_nothing_for_a_while_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http1, "LATELY_SECONDS", 0.1)
    async with listening() as (listener, port):
        reader, writer = await connect(port)
        writer.write(HTTP1)
        await reader.readuntil(b"POST abc")
        assert await asyncio.wait_for(listener.drain(0.05, 60), 5)
        assert await reader.read() == b""
        writer.close()


async def test_who_is_to_come_anew_is_told_closed_and_ended_and_others_are_served() -> None:
    begun = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] != "/long":
            await echo(scope, receive, send)
            return
        begun.set()
        while (await receive())["type"] != "http.disconnect":
            pass

    async with listening(app) as (listener, port):
        (long, ask_long), (silent, ask), (quiet, asks_nothing) = [await connect(port) for _ in range(3)]
        ask_long.write(HTTP1.replace(b"/x", b"/long"))
        await begun.wait()
        while len(listener) < 3:
            await asyncio.sleep(0.01)
        listener.turn_over(0.05, 1.5)
        ask.write(HTTP1)  # it had said nothing yet, and is told by its first answer
        assert b"connection: close" in await silent.readuntil(b"POST abc")
        assert await silent.read() == b""
        assert await quiet.read() == b""
        assert len(listener) == 1
        with contextlib.suppress(ConnectionError):
            assert await asyncio.wait_for(long.read(), 5) == b""
        again, writer = await connect(port)
        writer.write(HTTP1)
        assert b"connection: close" not in await again.readuntil(b"POST abc")
        for each in (ask_long, ask, asks_nothing, writer):
            each.close()
