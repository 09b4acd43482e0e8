//! Certificates: what loading many costs, and that a look-up costs the same among many as among few.
#![allow(missing_docs, reason = "criterion's macro writes an item without one")]

use std::sync::Arc;

use criterion::{Criterion, criterion_group, criterion_main};
use goma_edge::tls::{Certificate, Index, IndexBuilder, Keeper};
use rcgen::{CertificateParams, KeyPair};
use rustls::SignatureScheme;

const NOW: i64 = 1_800_000_000;

fn certificates(c: &mut Criterion) {
    let pairs: Vec<(String, String)> = (0..1000).map(pair).collect();
    let mut group = c.benchmark_group("certificates");
    group.sample_size(10);
    group.bench_function("load 1000", |b| b.iter(|| load(&Keeper::default(), &pairs)));
    let keeper = Keeper::default();
    let held = load(&keeper, &pairs);
    group.bench_function("load 1000 again, unchanged", |b| b.iter(|| load(&keeper, &pairs)));
    for count in [1, 1000] {
        let index = index(&held[..count]);
        let offered = [SignatureScheme::ECDSA_NISTP256_SHA256];
        for (about, name) in [("name", "host-0.example.com"), ("wildcard", "x.host-0.example.com"), ("default", "none")]
        {
            group.bench_function(format!("find a {about} among {count}"), |b| {
                b.iter(|| index.certificate(Some(name), &offered).map(|it| it.served()));
            });
        }
    }
    group.finish();
}

fn pair(number: usize) -> (String, String) {
    let name = format!("host-{number}.example.com");
    let params = CertificateParams::new(vec![name.clone(), format!("*.{name}")]).expect("names");
    let key = KeyPair::generate().expect("a key");
    (params.self_signed(&key).expect("a certificate").pem(), key.serialize_pem())
}

fn load(keeper: &Keeper, pairs: &[(String, String)]) -> Vec<Arc<Certificate>> {
    let load = |(pem, key): &(String, String)| keeper.load(pem.as_bytes(), key.as_bytes(), NOW).expect("sound").0;
    pairs.iter().map(load).collect()
}

fn index(certificates: &[Arc<Certificate>]) -> Index {
    let mut builder = IndexBuilder::new(certificates[0].clone(), NOW);
    certificates.iter().for_each(|certificate| builder.add(certificate));
    builder.build()
}

criterion_group!(benches, certificates);
criterion_main!(benches);
