"""python-hyper's h2 as the client: it raises for everything that a server must not say."""

from __future__ import annotations

from typing import Any

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, ResponseReceived, StreamEnded, StreamReset
from h2.exceptions import FlowControlError
from hypothesis import given, settings
from hypothesis import strategies as st

from earshot.server.direct.http2 import Http2Connection
from earshot.server.direct.served import Served

from .wire import Transport, body_of, settle

pytestmark = pytest.mark.anyio

HEADERS = [(":method", "POST"), (":scheme", "http"), (":path", "/x"), (":authority", "here")]
SIZES = st.sampled_from([0, 1, 1000, 16_384, 70_000, 200_000])


async def twice(scope: Any, receive: Any, send: Any) -> None:
    """Answers in two pieces and with trailers."""
    body = await body_of(receive)
    await send({"type": "http.response.start", "status": 200, "headers": [], "trailers": True})
    await send({"type": "http.response.body", "body": body, "more_body": True})
    await send({"type": "http.response.body", "body": body})
    await send({"type": "http.response.trailers", "headers": [(b"grpc-status", b"0")]})


class Client:
    def __init__(self) -> None:
        self.transport = Transport()
        self.server = Http2Connection(Served(twice), lambda _: None)
        self.server.connection_made(self.transport)
        self.h2 = H2Connection(H2Configuration(client_side=True))
        self.h2.initiate_connection()
        self.answers: dict[int, bytes] = {}
        self.ended: set[int] = set()
        self._unsent: dict[int, bytes] = {}
        self._seen = 0

    def ask(self, size: int, more: list[tuple[str, str]]) -> int:
        stream = self.h2.get_next_available_stream_id()
        self.h2.send_headers(stream, [*HEADERS, *more])
        self._unsent[stream] = bytes([stream % 251]) * size
        return stream

    def give_up(self, stream: int) -> None:
        if stream not in self.ended:
            self.h2.reset_stream(stream)
            self._unsent.pop(stream, None)
            self.ended.add(stream)

    async def turn(self) -> None:
        """Sends what the windows allow, and reads what came."""
        for stream, body in list(self._unsent.items()):
            size = min(self.h2.local_flow_control_window(stream), self.h2.max_outbound_frame_size, len(body))
            try:
                self.h2.send_data(stream, body[:size], end_stream=size == len(body))
            except FlowControlError:
                continue
            self._unsent[stream] = body[size:]
            if size == len(body):
                del self._unsent[stream]
        self.server.data_received(self.h2.data_to_send())
        await settle()
        said, self._seen = self.transport.written[self._seen :], len(self.transport.written)
        for event in self.h2.receive_data(said):
            if isinstance(event, ResponseReceived):
                self.answers[event.stream_id] = b""
            elif isinstance(event, DataReceived):
                self.answers[event.stream_id] += event.data
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, StreamEnded):
                self.ended.add(event.stream_id)
            elif isinstance(event, StreamReset):
                raise AssertionError(f"stream {event.stream_id} was reset: {event.error_code}")


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.tuples(
            SIZES,
            st.lists(
                st.tuples(st.sampled_from(["x-a", "x-b"]), st.sampled_from(["1", "2" * 50])), max_size=3
            ),
            st.integers(0, 3),
            st.booleans(),
        ),
        min_size=1,
        max_size=12,
    )
)
async def test_whatever_is_asked_is_answered_as_the_protocol_wants(
    calls: list[tuple[int, list[tuple[str, str]], int, bool]],
) -> None:
    client = Client()
    asked: dict[int, int] = {}
    for size, more, turns, is_given_up in calls:
        stream = client.ask(size, more)
        for _ in range(turns):
            await client.turn()
        if is_given_up:
            client.give_up(stream)
        else:
            asked[stream] = size
    for _ in range(1000):
        if set(asked) <= client.ended:
            break
        await client.turn()
    assert set(asked) <= client.ended
    for stream, size in asked.items():
        assert client.answers[stream] == bytes([stream % 251]) * (2 * size)
