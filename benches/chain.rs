//! What a chain costs a request: the hooks of ten middlewares, and of none. Connections and copies of bodies are not in it;
//! the pair of configurations in `benches/configs` measures the whole.
//!
//! `cargo bench --bench chain`
#![allow(missing_docs, reason = "criterion's macro writes an item without one")]

use std::borrow::Cow;
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Instant;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use futures::executor::block_on;
use goma_edge::config::{self, Env, Source};
use goma_edge::exchange::{Exchange, Reason, RequestId};
use goma_edge::middleware::{Answering, Chain};
use goma_edge::snapshot::{Snapshot, Workshop, build};
use http::Method;
use pingora_http::{RequestHeader, ResponseHeader};

/// The gateway's.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn chains(c: &mut Criterion) {
    let mut group = c.benchmark_group("chain");
    for name in ["bare", "ten_middlewares"] {
        let snapshot = snapshot(name);
        let chain = &snapshot.routes[0].chain;
        let page = || (exchange("/shop/items/42", Some("page=2&sort=price")), request());
        group.bench_function(name, |b| {
            b.iter_batched(page, |(exchange, head)| walk(chain, exchange, head), BatchSize::SmallInput);
        });
    }
    group.finish();
}

/// A request there, its response back.
fn walk(chain: &Chain, mut exchange: Exchange, mut head: RequestHeader) -> (Exchange, RequestHeader, ResponseHeader) {
    let (ran, verdict) = block_on(chain.request(&mut exchange, &mut head));
    assert!(verdict.is_none(), "all of them let it pass");
    black_box(chain.watches(&exchange, &head));
    let mut answer = ResponseHeader::build(200, Some(8)).expect("a status");
    chain.response(ran, &exchange, &mut answer);
    let origin = chain.shell.origin(&head);
    let answering = Answering { asked: "/shop", sent: &exchange.path, origin: origin.as_deref(), proxied: true };
    chain.shell.apply(&answering, &mut answer);
    (exchange, head, answer)
}

fn snapshot(name: &str) -> Snapshot {
    let path = format!("{}/benches/configs/{name}.yml", env!("CARGO_MANIFEST_DIR"));
    let source = Source { path: Some(path.into()), env: Env::default() };
    let examined = config::examine(&source);
    let workshop = Workshop::detached(&examined.loaded.config, &source.env);
    build(examined, &workshop).unwrap_or_else(|report| panic!("{report}")).0
}

fn exchange(path: &str, query: Option<&str>) -> Exchange {
    Exchange {
        id: RequestId::take(None),
        client: IpAddr::V4(Ipv4Addr::LOCALHOST),
        peer: IpAddr::V4(Ipv4Addr::LOCALHOST),
        scheme: "http",
        method: Method::GET,
        host: "shop.example.com".to_owned(),
        path: path.to_owned(),
        query: query.map(str::to_owned),
        started: Instant::now(),
        upstream_time: None,
        attempts: 1,
        held: Vec::new(),
        claims: None,
        limits: Vec::new(),
        cookies: Vec::new(),
        reason: Reason::Ok,
        why: Cow::Borrowed(""),
    }
}

fn request() -> RequestHeader {
    let mut head = RequestHeader::build(Method::GET, b"/shop/items/42?page=2&sort=price", Some(8)).expect("a head");
    for (name, value) in [
        ("Host", "shop.example.com"),
        ("User-Agent", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"),
        ("Accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"),
        ("Accept-Encoding", "gzip, deflate, br, zstd"),
        ("Origin", "https://app.example.com"),
        ("Cookie", "theme=dark; session=0123456789abcdef"),
    ] {
        head.append_header(name, value).expect("a header");
    }
    head
}

criterion_group!(benches, chains);
criterion_main!(benches);
