//! What counting and logging cost a request.
//!
//! Goals: beginning and ending a request below 150 ns; an access line that is off costs one comparison.
#![allow(missing_docs, reason = "criterion's macro writes an item without one")]

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};

use goma_edge::exchange::Reason;
use goma_edge::telemetry::access::{self, AccessLine};
use goma_edge::telemetry::log::{self, FileSettings, Settings};
use goma_edge::telemetry::metrics::Metrics;
use goma_edge::telemetry::route::{End, Method};

fn metrics(c: &mut Criterion) {
    let metrics = Metrics::new();
    let route = metrics.route("api");
    let end = End {
        method: Method::Get,
        status: 200,
        duration: Duration::from_millis(3),
        upstream: Some(Duration::from_millis(2)),
        response_bytes: 1234,
        reason: Reason::Ok,
    };
    c.bench_function("metrics/begin+end", |b| {
        b.iter(|| {
            route.begin(std::hint::black_box(Method::Get), Some(10));
            route.end(std::hint::black_box(&end));
        });
    });
    c.bench_function("metrics/begin+end on two threads", |b| {
        b.iter_custom(|rounds| {
            let started = std::time::Instant::now();
            std::thread::scope(|scope| {
                for _ in 0..2 {
                    scope.spawn(|| {
                        for _ in 0..rounds {
                            route.begin(Method::Get, Some(10));
                            route.end(&end);
                        }
                    });
                }
            });
            started.elapsed()
        });
    });
    for number in 0..1000 {
        let route = metrics.route(&format!("route-{number}"));
        route.begin(Method::Get, None);
        route.end(&end);
    }
    c.bench_function("metrics/page of 1000 routes", |b| b.iter(|| metrics.render()));
}

fn access_line(c: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = FileSettings { path: folder.path().join("goma.log"), max_size_mb: 16, max_backups: 1, max_age_days: 0 };
    let handle = log::init(&Settings { file: Some(file), ..Settings::default() });
    let access = handle.access();
    let line = AccessLine {
        request_id: "0123456789abcdef0123456789abcdef",
        method: "GET",
        url: "/v1/things/17",
        http_version: "HTTP/1.1",
        host: "api.example.com",
        client_ip: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7)),
        referer: "",
        status: 200,
        duration: Duration::from_millis(3),
        route: "api",
        user_agent: "Mozilla/5.0 (X11; Linux x86_64) Example/1.0",
        extras: &[],
        detail: None,
        reason: Reason::Ok,
        why: "",
        bytes: 1234,
        attempts: 1,
        backend: "http://10.0.0.1:8080",
        cache: "",
    };
    c.bench_function("access/off", |b| b.iter(|| access::enabled(std::hint::black_box(200))));
    c.bench_function("access/hand over", |b| b.iter(|| access.write(std::hint::black_box(&line))));
    // The writer cannot keep up with a loop that does nothing else, so most of those were dropped; this counts written ones.
    c.bench_function("access/1000 lines written", |b| {
        b.iter(|| {
            (0..1000).for_each(|_| access.write(&line));
            handle.flush()
        });
    });
}

criterion_group!(benches, metrics, access_line);
criterion_main!(benches);
