//! What a look-up costs, with one route and with ten thousand.
//!
//! `cargo bench --bench routing`

// The macro of criterion makes public functions without a doc.
#![allow(missing_docs)]

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use goma_edge::gate;
use goma_edge::route::{Builder, Find, Methods, Pattern, Span, Table};

/// As many routes, and as many hosts on one path, as one gateway is likely to see.
const SIZES: [usize; 3] = [1, 100, 10_000];

fn pattern(path: String, hosts: Vec<String>) -> Pattern {
    Pattern { path, hosts, priority: 0, methods: Methods::Any, span: Span::Prefix }
}

fn table(patterns: impl Iterator<Item = Pattern>) -> Table<usize> {
    let mut builder = Builder::new(true);
    for (index, pattern) in patterns.enumerate() {
        builder.add(pattern, index).expect("the pattern is sound");
    }
    builder.build().0
}

fn look_up(table: &Table<usize>, path: &str, host: &str) -> bool {
    let path = gate::path(black_box(path)).expect("the path is sound");
    matches!(table.find(&path, black_box(host), black_box("GET")), Find::Found(_))
}

/// A route for each service, all hosts.
fn paths(c: &mut Criterion) {
    let mut group = c.benchmark_group("paths");
    for size in SIZES {
        let paths = (0..size).map(|i| pattern(format!("/api/v1/service-{i}"), Vec::new()));
        let table = table(paths);
        let path = format!("/api/v1/service-{}/users/42", size / 2);
        group.bench_function(BenchmarkId::from_parameter(size), |b| {
            b.iter(|| assert!(look_up(&table, &path, "api.example.com")));
        });
    }
    group.finish();
}

/// A host for each tenant, all on the root.
fn hosts(c: &mut Criterion) {
    let mut group = c.benchmark_group("hosts");
    for size in SIZES {
        let hosts = (0..size).map(|i| pattern("/".to_owned(), vec![format!("t{i}.example.com")]));
        let table = table(hosts);
        let host = format!("t{}.example.com", size / 2);
        group.bench_function(BenchmarkId::from_parameter(size), |b| {
            b.iter(|| assert!(look_up(&table, "/users/42", &host)));
        });
    }
    group.finish();
}

/// Wildcard hosts and placeholders: the look-up with the most steps.
fn wildcards(c: &mut Criterion) {
    let mut group = c.benchmark_group("wildcards");
    for size in SIZES {
        let routes =
            (0..size).map(|i| pattern(format!("/tenants/{{id}}/app-{i}"), vec![format!("*.t{}.example.com", i % 100)]));
        let table = table(routes);
        let (path, host) = (format!("/tenants/7/app-{}/x", size / 2), format!("a.b.t{}.example.com", size / 2 % 100));
        group.bench_function(BenchmarkId::from_parameter(size), |b| {
            b.iter(|| assert!(look_up(&table, &path, &host)));
        });
    }
    group.finish();
}

/// No route for the path: every step in vain.
fn misses(c: &mut Criterion) {
    let mut group = c.benchmark_group("misses");
    for size in SIZES {
        let table = table((0..size).map(|i| pattern(format!("/api/v1/s-{i}"), Vec::new())));
        group.bench_function(BenchmarkId::from_parameter(size), |b| {
            b.iter(|| assert!(!look_up(&table, "/api/v1/unknown", "api.example.com")));
        });
    }
    group.finish();
}

/// The gate over the head of a small request, as the entry point runs it.
fn head(c: &mut Criterion) {
    let bytes = b"GET /api/v1/users/42?fields=name HTTP/1.1\r\nHost: api.example.com\r\nUser-Agent: curl/8.5.0\r\n\
        Accept: */*\r\nAccept-Encoding: gzip, br\r\nAuthorization: Bearer 0123456789abcdef0123456789abcdef\r\n\
        Cookie: session=0123456789abcdef0123456789abcdef\r\nConnection: keep-alive\r\n\r\n";
    let limits = gate::Limits::default();
    c.bench_function("gate/head", |b| {
        b.iter(|| {
            let end = gate::end_of_head(black_box(bytes), 0).expect("the head is whole");
            gate::head(&bytes[..end], &limits).expect("the head is sound")
        });
    });
    c.bench_function("gate/chunks of 64 KiB", |b| {
        let body = format!("10000\r\n{}\r\n", "x".repeat(64 << 10)).repeat(16);
        b.iter(|| gate::ChunkScanner::new(&limits).feed(black_box(body.as_bytes())));
    });
}

/// Compiling the largest table, as a reload does.
fn build(c: &mut Criterion) {
    c.bench_function("build/10000", |b| {
        b.iter(|| {
            let routes = (0..10_000).map(|i| {
                let hosts = vec![format!("t{i}.example.com")];
                pattern(format!("/api/v1/service-{i}"), hosts)
            });
            table(routes)
        });
    });
}

criterion_group!(benches, paths, hosts, wildcards, misses, head, build);
criterion_main!(benches);
