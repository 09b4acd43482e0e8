//! The HTTP cache: storage and arithmetic, without HTTP phases (those are in `proxy::cached`). RFC 9111.
//!
//! | module | what it does |
//! |---|---|
//! | [`directives`], `targeted` | what `Cache-Control` and `CDN-Cache-Control` say |
//! | [`freshness`] | may a response be stored, how long is it fresh, may it answer a request |
//! | [`key`], [`vary`] | which requests are the same |
//! | [`entry`], [`store`], `queues` | stored responses within a number of bytes, and which of them stay |
//! | [`fill`], [`prepared`], [`storage`] | responses under way, and the store as Pingora wants to see it |
//! | [`shared`], [`purges`], `wire` | what gateways share in Redis, and purges that reach all of them |
//! | [`zone`] | a cache of its own for each definition and route; purges |
//! | [`status`] | what the cache did, in words |

pub mod directives;
pub mod entry;
pub mod fill;
pub mod freshness;
pub mod key;
pub mod prepared;
pub mod purges;
mod queues;
pub mod shared;
pub mod status;
pub mod storage;
pub mod store;
mod targeted;
pub mod vary;
mod wire;
pub mod zone;
