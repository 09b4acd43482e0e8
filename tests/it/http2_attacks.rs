//! Known attacks on HTTP/2: each ends with its connection, costs little, and nobody else notices.

use bytes::BytesMut;
use tokio::io::AsyncWriteExt;

use crate::world::*;

const ROUTE: &str = "- {name: r, path: /, target: ORIGIN}";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a frame").to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags];
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// A literal field with its own name; with `index` it goes into the table of the connection.
fn field(name: &str, value: &str, index: bool) -> Vec<u8> {
    let mut block = vec![if index { 0x40 } else { 0 }];
    for text in [name, value] {
        if text.len() < 127 {
            block.push(u8::try_from(text.len()).expect("short"));
        } else {
            // RFC 7541 §5.1: the rest in groups of seven bits.
            block.push(127);
            let mut rest = text.len() - 127;
            while rest >= 128 {
                block.push(u8::try_from(rest % 128 + 128).expect("a byte"));
                rest /= 128;
            }
            block.push(u8::try_from(rest).expect("a byte"));
        }
        block.extend(text.as_bytes());
    }
    block
}

/// `GET /` for `gateway.test`.
fn request() -> Vec<u8> {
    // `:method GET`, `:scheme http`, `:path /` of the static table.
    [vec![0x82, 0x86, 0x84], field(":authority", "gateway.test", false)].concat()
}

/// A connection whose preface and settings were sent.
async fn begun(gateway: &Gateway) -> Connection {
    let mut connection = gateway.connect().await;
    connection.write(&[b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), frame(SETTINGS, 0, 0, &[])].concat()).await;
    connection
}

/// Sends `rounds` of frames, then reads until the gateway closes; the reason of its GOAWAY, if there was one.
async fn floods(gateway: &Gateway, rounds: u32, frames: impl Fn(u32) -> Vec<u8>) -> Option<u32> {
    let mut connection = begun(gateway).await;
    for round in (0..rounds).step_by(50) {
        let mut burst = BytesMut::new();
        (round..rounds.min(round + 50)).for_each(|round| burst.extend_from_slice(&frames(round)));
        // The gateway may be gone before it has taken everything, which is the point.
        if connection.wire.stream().write_all(&burst).await.is_err() {
            break;
        }
    }
    connection.wire.finish().await;
    goaway(&connection.wire.rest().await.unwrap_or_default())
}

fn goaway(mut bytes: &[u8]) -> Option<u32> {
    while bytes.len() >= 9 {
        let length = usize::from(bytes[0]) << 16 | usize::from(bytes[1]) << 8 | usize::from(bytes[2]);
        let payload = bytes.get(9..9 + length)?;
        if bytes[3] == 7 {
            return Some(u32::from_be_bytes(payload.get(4..8)?.try_into().ok()?));
        }
        bytes = &bytes[9 + length..];
    }
    None
}

const CALM_DOWN: u32 = 11;

#[tokio::test]
async fn floods_of_frames_end_their_connection() {
    let origin = Origin::start().await;
    let gateway = Gateway::before(&origin).routes(ROUTE).await;
    let stream = |round: u32| 2 * round + 1;
    let reset = |round| {
        let begins = frame(HEADERS, END_HEADERS | END_STREAM, stream(round), &request());
        [begins, frame(RST_STREAM, 0, stream(round), &8u32.to_be_bytes())].concat()
    };
    let opened = frame(HEADERS, END_HEADERS, 1, &request());
    let first = |round: u32, rest: Vec<u8>| if round == 0 { [opened.clone(), rest].concat() } else { rest };
    let before = gateway.rss_bytes();
    let mut told = 0;
    for (about, rounds, frames) in [
        ("rapid reset", 20_000, &reset as &dyn Fn(u32) -> Vec<u8>),
        ("pings", 50_000, &|_| frame(PING, 0, 0, &[0; 8])),
        ("settings", 50_000, &|_| frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 9])),
        ("priorities", 50_000, &|round| frame(PRIORITY, 0, stream(round), &[0, 0, 0, 0, 9])),
        ("window updates", 50_000, &|_| frame(WINDOW_UPDATE, 0, 0, &1u32.to_be_bytes())),
        ("empty data", 50_000, &|round| first(round, frame(DATA, 0, 1, &[]))),
        ("frames of no known kind", 50_000, &|_| frame(77, 0, 0, &[1])),
    ] {
        let reason = floods(&gateway, rounds, frames).await;
        // Who goes on sending may be reset before it reads why.
        assert!(matches!(reason, Some(CALM_DOWN) | None), "{about}: {reason:?}");
        // The library has bounds of its own on these, and may be the first to let go.
        told += usize::from(!matches!(about, "rapid reset" | "empty data"));
        let logged = || gateway.log().lines().filter(|line| line.contains("HTTP/2 flood")).count();
        eventually(&format!("a flood of {about} is told"), async || (logged() >= told).then_some(())).await;
        assert_eq!(gateway.h2().await.get("/").await.status, 200, "others are served after {about}");
    }
    let grown = gateway.rss_bytes().saturating_sub(before);
    assert!(grown < 64 << 20, "{grown} bytes more than before");
    assert!(origin.seen().len() < 5_000, "the backend has seen {} requests", origin.seen().len());
}

#[tokio::test]
async fn heads_without_end_are_cut() {
    let origin = Origin::start().await;
    let gateway = Gateway::before(&origin).routes(ROUTE).await;
    let before = gateway.rss_bytes();
    let piece = field("x-more", &"x".repeat(16_000), false);
    let continues = |round| match round {
        0 => frame(HEADERS, END_STREAM, 1, &request()),
        _ => frame(CONTINUATION, 0, 1, &piece),
    };
    let reason = floods(&gateway, 3_000, continues).await;
    assert!(matches!(reason, Some(_) | None), "CONTINUATION without an end");
    let small = |round| match round {
        0 => frame(HEADERS, END_STREAM, 1, &request()),
        _ => frame(CONTINUATION, 0, 1, &[]),
    };
    floods(&gateway, 50_000, small).await;
    let grown = gateway.rss_bytes().saturating_sub(before);
    assert!(grown < 64 << 20, "{grown} bytes more than before");
    assert!(origin.saw_nothing());
    assert_eq!(gateway.h2().await.get("/").await.status, 200);
}

#[tokio::test]
async fn a_small_head_that_unpacks_to_a_large_one_is_refused() {
    let origin = Origin::start().await;
    let gateway = Gateway::before(&origin).routes(ROUTE).await;
    let before = gateway.rss_bytes();
    let mut connection = begun(&gateway).await;
    // One field of 4,000 bytes goes into the table, then a byte stands for it, sixteen thousand times in a frame.
    let plant = [request(), field("x", &"y".repeat(4_000), true)].concat();
    connection.write(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &plant)).await;
    eventually("the first one", async || (!origin.saw_nothing()).then_some(())).await;
    for stream in 0..20u32 {
        let bomb = [request(), vec![0xbe; 16_000]].concat();
        let sent = connection.wire.send(&frame(HEADERS, END_HEADERS | END_STREAM, 2 * stream + 3, &bomb)).await;
        if sent.is_err() {
            break;
        }
    }
    connection.wire.finish().await;
    let _ = connection.wire.rest().await;
    let grown = gateway.rss_bytes().saturating_sub(before);
    assert!(grown < 64 << 20, "{grown} bytes more than before");
    assert_eq!(origin.seen().len(), 1, "the bombs reach nobody");
    assert_eq!(gateway.h2().await.get("/").await.status, 200);
}

#[tokio::test]
async fn floods_under_tls_end_as_well() {
    let origin = Origin::start().await;
    let gateway = Gateway::before(&origin).routes(ROUTE).await;
    let tunnel = gateway.through(&TlsClient::careless().offers(&["h2"])).await;
    let mut connection = tunnel.connect().await;
    connection.write(&[b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), frame(SETTINGS, 0, 0, &[])].concat()).await;
    for _ in 0..500 {
        let burst: Vec<u8> = (0..100).flat_map(|_| frame(PING, 0, 0, &[0; 8])).collect();
        if connection.wire.stream().write_all(&burst).await.is_err() {
            break;
        }
    }
    gateway.logs("HTTP/2 flood").await;
    assert_eq!(tunnel.h2().await.get("/").await.status, 200);
}

#[tokio::test]
async fn a_client_may_cancel_and_ping_as_usual() {
    let origin = Origin::start().await;
    let gateway = Gateway::before(&origin).routes(ROUTE).await;
    let client = gateway.h2().await;
    for _ in 0..10 {
        for _ in 0..10 {
            let request = client.request("GET", "/").body(()).expect("a request");
            drop(client.call(request, true).await);
        }
        assert_eq!(client.get("/").await.status, 200);
    }
    assert_eq!(client.get("/").await.status, 200, "a connection with cancelled requests goes on");
}
