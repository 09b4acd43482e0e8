//! What a limit costs: in memory for one client, for ever new ones and for one that is refused; a borrowed token.
#![allow(missing_docs, reason = "criterion's macro writes an item without one")]

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use goma_edge::limit::{Limits, Quota};

fn limits(c: &mut Criterion) {
    let mut group = c.benchmark_group("limit");
    let (wide, narrow) =
        (Quota::new(100_000_000, Duration::from_secs(1), 0), Quota::new(1, Duration::from_secs(3600), 0));
    let limits = Limits::default();
    group.bench_function("one client", |b| {
        b.iter(|| {
            let key = limits.key((7_u64, "ip:", black_box([192, 0, 2, 1])));
            limits.table.take(key, &wide, limits.now(), 1)
        });
    });
    group.bench_function("one client that is refused", |b| {
        b.iter(|| limits.table.take(black_box(3), &narrow, limits.now(), 1));
    });
    let mut client = 0_u64;
    group.bench_function("ever new clients", |b| {
        b.iter(|| {
            client += 1;
            limits.table.take(limits.key(client), &wide, limits.now(), 1)
        });
    });
    limits.leases.hold(5, 1000, limits.now());
    limits.leases.borrowed(5, u32::MAX, u64::MAX / 2, limits.now());
    group.bench_function("a borrowed token", |b| b.iter(|| limits.leases.hold(black_box(5), 1000, limits.now())));
    group.finish();
}

criterion_group!(benches, limits);
criterion_main!(benches);
