use std::net::IpAddr;

use super::*;
use crate::geoip::writer::mmdb_of;

const NETWORKS: &[(&str, &str)] = &[
    ("1.0.0.0/8", "AU"),
    ("1.1.0.0/16", "US"),
    ("203.0.113.0/24", "DE"),
    ("203.0.113.7/32", "FR"),
    ("255.255.255.255/32", "ZZ"),
    ("2001:db8::/32", "JP"),
    ("2001:db8:1::/48", "BR"),
];

fn country(lands: &Lands, address: &str) -> Option<String> {
    lands.country(address.parse().expect("an address")).map(|country| country.to_string())
}

#[test]
fn each_address_is_in_the_country_of_its_narrowest_network() {
    for (family, bits) in [(6, 24), (6, 28), (6, 32), (4, 24), (4, 28), (4, 32)] {
        let networks: Vec<_> = NETWORKS.iter().copied().filter(|(net, _)| family == 6 || !net.contains(':')).collect();
        let lands = read(&mmdb_of(family, bits, &networks)).expect("a database");
        for (address, expected, embeds) in [
            ("0.0.0.0", None, false),
            ("1.0.0.0", Some("AU"), false),
            ("1.1.255.255", Some("US"), false),
            ("1.2.0.0", Some("AU"), false),
            ("2.0.0.0", None, false),
            ("203.0.113.6", Some("DE"), false),
            ("203.0.113.7", Some("FR"), false),
            ("203.0.113.8", Some("DE"), false),
            ("255.255.255.254", None, false),
            ("255.255.255.255", Some("ZZ"), false),
            ("::ffff:203.0.113.7", Some("FR"), false),
            ("2001:db8::1", Some("JP"), true),
            ("2001:db8:1::", Some("BR"), true),
            ("2001:db8:1:ffff::", Some("BR"), true),
            ("2001:db8:2::", Some("JP"), true),
            ("2001:db9::", None, true),
            ("2002:cb00:7107:1::1", Some("FR"), true),
            ("ffff::", None, true),
        ] {
            let expected = expected.filter(|_| !embeds || family == 6);
            assert_eq!(country(&lands, address).as_deref(), expected, "{address}, IPv{family}, {bits} bits");
        }
    }
}

#[test]
fn another_reader_of_the_format_says_the_same() {
    #[derive(serde::Deserialize)]
    struct Found {
        country: Iso,
    }
    #[derive(serde::Deserialize)]
    struct Iso {
        iso_code: String,
    }
    let file = mmdb_of(6, 28, NETWORKS);
    let (lands, other) = (read(&file).expect("ours"), maxminddb::Reader::from_source(&file[..]).expect("theirs"));
    for i in 0..50_000u32 {
        let bits = u128::from(i.wrapping_mul(2_654_435_761));
        for address in
            [IpAddr::from((bits as u32).to_be_bytes()), IpAddr::from((0x2001_0db8 << 96 | bits << 64).to_be_bytes())]
        {
            let theirs = other.lookup::<Found>(address).expect("a look-up").map(|found| found.country.iso_code);
            assert_eq!(lands.country(address).map(|country| country.to_string()), theirs, "{address}");
        }
    }
}

#[test]
fn what_is_broken_is_told_and_never_panics() {
    let whole = mmdb_of(6, 28, NETWORKS);
    assert_eq!(read(b"").err(), Some(Broken::Metadata));
    assert_eq!(read(b"<html>not found</html>").err(), Some(Broken::Metadata));
    assert_eq!(read(&whole[..whole.len() / 2]).err(), Some(Broken::Metadata));
    assert_eq!(read(&whole[whole.len() / 2..]).err(), Some(Broken::Record));
    assert_eq!(read(&mmdb_of(6, 28, &[])).err(), Some(Broken::NoCountry));
    // The first node leads to itself.
    let mut loops = mmdb_of(4, 24, &[("1.0.0.0/8", "AU")]);
    loops[..6].fill(0);
    assert_eq!(read(&loops).err(), Some(Broken::Loop));
    for at in 0..whole.len() {
        for byte in [0x00, 0x01, 0x1f, 0x2f, 0x5f, 0x7f, 0xe0, 0xff] {
            let mut damaged = whole.clone();
            damaged[at] = byte;
            if let Ok(lands) = read(&damaged) {
                let _ = country(&lands, "203.0.113.7");
            }
        }
        let _ = read(&whole[at..]);
        let _ = read(&whole[..at]);
    }
}
