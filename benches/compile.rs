//! From the text of a configuration of 10,000 routes to a snapshot in force: what a start or a reload costs.
#![allow(missing_docs, reason = "criterion's macro writes an item without one")]

use std::fmt::Write;

use criterion::{Criterion, criterion_group, criterion_main};
use goma_edge::config::{self, Env, Source};
use goma_edge::snapshot::{Workshop, build};

fn compile(c: &mut Criterion) {
    let mut group = c.benchmark_group("compile");
    group.sample_size(10);
    for count in [100, 10_000] {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("goma.yml");
        std::fs::write(&path, document(count)).expect("a file");
        let source = Source { path: Some(path), env: Env::default() };
        group.bench_function(format!("load {count} routes"), |b| b.iter(|| config::load(&source).expect("valid")));
        let examined = config::examine(&source);
        let workshop = Workshop::detached(&examined.loaded.config, &source.env);
        group.bench_function(format!("load and build {count} routes"), |b| {
            b.iter(|| build(config::examine(&source), &workshop).expect("valid").0);
        });
    }
    group.finish();
}

/// Routes as operators have them: a host, a path, backends, a middleware.
fn document(count: usize) -> String {
    let mut text = String::from("version: '2'\ngateway:\n  routes:\n");
    for i in 0..count {
        write!(
            text,
            "    - name: service-{i}\n      path: /tenant-{}/service-{i}\n      rewrite: /\n      hosts: [app-{}.example.com]\n      \
             backends:\n        - endpoint: http://10.{}.{}.1:8080\n        - endpoint: http://10.{}.{}.2:8080\n      \
             middlewares: [closed, headers]\n",
            i / 100,
            i / 10,
            i / 256 % 256,
            i % 256,
            i / 256 % 256,
            i % 256,
        )
        .expect("writing to a string");
    }
    text + "middlewares:\n  - {name: closed, type: access, paths: [/internal/*]}\n  \
            - {name: headers, type: responseHeaders, rule: {setHeaders: {X-Frame-Options: DENY}}}\n"
}

criterion_group!(benches, compile);
criterion_main!(benches);
