//! What it costs to look at a user agent: a browser's, a known bot's, an unknown one's, and a long one.
#![allow(missing_docs, reason = "criterion's macro writes an item without one")]

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use goma_edge::middleware::bots::look;

fn agents(c: &mut Criterion) {
    let long = "Mozilla/5.0 (Windows NT 10.0) ".repeat(100);
    let rows = [
        (
            "a browser",
            "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36",
        ),
        (
            "a phone",
            "Mozilla/5.0 (Linux; Android 15; SM-S928B Build/AP3A.240905.015; wv) AppleWebKit/537.36 (KHTML, like Gecko) \
             Version/4.0 Chrome/140.0.7339.51 Mobile Safari/537.36",
        ),
        ("a known bot", "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"),
        ("a script", "acme-billing/3.1"),
        ("3 KB", long.as_str()),
    ];
    let mut group = c.benchmark_group("bots");
    for (about, agent) in rows {
        group.bench_function(about, |b| b.iter(|| look(black_box(agent.as_bytes()))));
    }
    group.finish();
}

criterion_group!(benches, agents);
criterion_main!(benches);
