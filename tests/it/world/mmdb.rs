//! Writes MaxMind databases: small ones, for tests.

use std::net::IpAddr;

/// What stands in a record of the tree.
#[derive(Clone, Copy)]
enum Record {
    Empty,
    Node(usize),
    /// Offset in the data section.
    Data(usize),
}

/// A database of these networks and countries, in IPv6 layout with IPv4 below it, records of 28 bits.
pub fn mmdb(networks: &[(&str, &str)]) -> Vec<u8> {
    mmdb_of(6, 28, networks)
}

/// A database of one address family (4, or 6 for both) and width of its records in bits (24, 28 or 32).
pub fn mmdb_of(family: u8, bits: u8, networks: &[(&str, &str)]) -> Vec<u8> {
    let mut tree = vec![[Record::Empty; 2]];
    let mut data = Vec::new();
    let mut written: Vec<(&str, usize)> = Vec::new();
    for (network, country) in networks {
        let known = written.iter().find(|(known, _)| known == country).map(|(_, offset)| *offset);
        let offset = known.unwrap_or_else(|| {
            written.push((country, data.len()));
            let offset = data.len();
            country_record(&mut data, country);
            offset
        });
        let (address, prefix) = path(family, network);
        insert(&mut tree, address, prefix, Record::Data(offset));
    }
    if family == 6 {
        embed(&mut tree);
    }
    let mut file = Vec::new();
    let number = |record| match record {
        Record::Empty => tree.len(),
        Record::Node(node) => node,
        Record::Data(offset) => tree.len() + 16 + offset,
    };
    for [left, right] in &tree {
        write_node(&mut file, bits, number(*left) as u32, number(*right) as u32);
    }
    file.extend([0; 16]);
    file.extend(data);
    file.extend(b"\xab\xcd\xefMaxMind.com");
    metadata(&mut file, family, bits, tree.len() as u32);
    file
}

/// The bits of a network, from the top of 128, and how many count.
fn path(family: u8, network: &str) -> (u128, u8) {
    let (address, prefix) = network.split_once('/').expect("a network");
    let prefix: u8 = prefix.parse().expect("a prefix");
    match (address.parse().expect("an address"), family) {
        (IpAddr::V4(address), 4) => (u128::from(u32::from(address)) << 96, prefix),
        (IpAddr::V4(address), _) => (u128::from(u32::from(address)), prefix + 96),
        (IpAddr::V6(address), _) => (address.into(), prefix),
    }
}

fn insert(tree: &mut Vec<[Record; 2]>, address: u128, prefix: u8, record: Record) {
    let mut node = 0;
    for depth in 0..prefix {
        let side = (address >> (127 - depth) & 1) as usize;
        if depth + 1 == prefix {
            tree[node][side] = record;
            return;
        }
        node = match tree[node][side] {
            Record::Node(next) => next,
            // What was one network becomes two halves.
            other => {
                tree.push([other; 2]);
                tree[node][side] = Record::Node(tree.len() - 1);
                tree.len() - 1
            }
        };
    }
}

/// Mapped addresses and 6to4 lead to the IPv4 part, as in real databases.
fn embed(tree: &mut Vec<[Record; 2]>) {
    let mut node = 0;
    for _ in 0..96 {
        match tree[node][0] {
            Record::Node(next) => node = next,
            _ => return,
        }
    }
    for (network, prefix) in [(0xffff_u128 << 32, 96), (0x2002 << 112, 16)] {
        insert(tree, network, prefix, Record::Node(node));
    }
}

fn write_node(file: &mut Vec<u8>, bits: u8, left: u32, right: u32) {
    let (l, r) = (left.to_be_bytes(), right.to_be_bytes());
    match bits {
        24 => file.extend([l[1], l[2], l[3], r[1], r[2], r[3]]),
        28 => file.extend([l[1], l[2], l[3], l[0] << 4 | r[0], r[1], r[2], r[3]]),
        _ => file.extend([l, r].concat()),
    }
}

fn text(into: &mut Vec<u8>, text: &str) {
    assert!(text.len() < 29);
    into.push(2 << 5 | text.len() as u8);
    into.extend(text.as_bytes());
}

fn map(into: &mut Vec<u8>, entries: u8) {
    into.push(7 << 5 | entries);
}

/// As MaxMind writes it: things of no interest come first, and some of the texts are pointers.
fn country_record(data: &mut Vec<u8>, country: &str) {
    map(data, 2);
    text(data, "continent");
    map(data, 2);
    text(data, "geoname_id");
    data.extend([6 << 5 | 3, 1, 2, 3]);
    text(data, "names");
    map(data, 1);
    text(data, "en");
    text(data, "somewhere");
    text(data, "country");
    map(data, 2);
    text(data, "is_in_european_union");
    data.extend([1, 14 - 7]);
    text(data, "iso_code");
    text(data, country);
}

fn metadata(file: &mut Vec<u8>, family: u8, bits: u8, nodes: u32) {
    map(file, 9);
    text(file, "binary_format_major_version");
    file.extend([5 << 5 | 1, 2]);
    text(file, "binary_format_minor_version");
    file.push(5 << 5);
    text(file, "build_epoch");
    file.extend([4, 9 - 7, 0x65, 0, 0, 0]);
    text(file, "description");
    map(file, 1);
    text(file, "en");
    text(file, "made for a test");
    text(file, "languages");
    file.extend([1, 11 - 7]);
    text(file, "en");
    text(file, "database_type");
    text(file, "Test-Country");
    text(file, "ip_version");
    file.extend([5 << 5 | 1, family]);
    text(file, "node_count");
    file.push(6 << 5 | 4);
    file.extend(nodes.to_be_bytes());
    text(file, "record_size");
    file.extend([5 << 5 | 1, bits]);
}
