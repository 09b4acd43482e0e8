//! Addresses to countries: the borders in order, and what lies behind each.

use std::fmt;
use std::net::IpAddr;

/// Two letters of ISO 3166-1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Country([u8; 2]);

impl Country {
    /// Two ASCII letters or digits, in upper case afterwards; `None` for other text.
    pub fn parse(text: &str) -> Option<Country> {
        match text.as_bytes() {
            [first, second] if first.is_ascii_alphanumeric() && second.is_ascii_alphanumeric() => {
                Some(Country([first.to_ascii_uppercase(), second.to_ascii_uppercase()]))
            }
            _ => None,
        }
    }

    /// The letters.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("two ASCII letters, see above")
    }
}

impl fmt::Display for Country {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Country {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What lies between two borders.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Land {
    /// Nobody knows.
    Nowhere,
    /// This country.
    In(Country),
    /// The bits from here on are an IPv4 address: mapped, 6to4, Teredo and the like.
    Embedded(u8),
}

/// All of both address families.
#[derive(Debug, Default)]
pub struct Lands {
    v4: Borders<u32>,
    v6: Borders<u128>,
}

/// Where lands begin, and which.
#[derive(Debug)]
pub struct Borders<N> {
    starts: Vec<N>,
    lands: Vec<Land>,
}

impl<N> Default for Borders<N> {
    fn default() -> Self {
        Borders { starts: Vec::new(), lands: Vec::new() }
    }
}

impl<N: Copy + Ord> Borders<N> {
    /// Adds a land behind all others.
    pub fn push(&mut self, start: N, land: Land) {
        if self.lands.last() != Some(&land) {
            self.starts.push(start);
            self.lands.push(land);
        }
    }

    fn find(&self, address: N) -> Land {
        let behind = self.starts.partition_point(|start| *start <= address);
        behind.checked_sub(1).map_or(Land::Nowhere, |index| self.lands[index])
    }
}

impl Lands {
    /// Puts both families together; each must begin with address zero.
    pub fn new(mut v4: Borders<u32>, mut v6: Borders<u128>) -> Lands {
        v4.starts.shrink_to_fit();
        v4.lands.shrink_to_fit();
        v6.starts.shrink_to_fit();
        v6.lands.shrink_to_fit();
        Lands { v4, v6 }
    }

    /// The country of an address.
    pub fn country(&self, address: IpAddr) -> Option<Country> {
        let land = match address.to_canonical() {
            IpAddr::V4(address) => self.v4.find(address.into()),
            IpAddr::V6(address) => {
                let bits = u128::from(address);
                match self.v6.find(bits) {
                    // An embedded address ends 32 bits further, inside the 128: the reader checks it.
                    Land::Embedded(from) => self.v4.find((bits >> (96 - u32::from(from))) as u32),
                    land => land,
                }
            }
        };
        match land {
            Land::In(country) => Some(country),
            Land::Nowhere | Land::Embedded(_) => None,
        }
    }
}
