//! The integration tests: one binary, one file a promise. See `world` for what they play with.

mod access_log;
mod admin;
mod balancing;
mod body_limit;
mod cli;
mod conf;
mod demo;
mod explain;
mod explained;
mod gate;
mod headers;
mod health;
mod http2;
mod middlewares;
mod redirects;
mod reload;
mod replies;
mod request_shaping;
mod rewriting;
mod routing;
mod stop;
mod streaming;
mod watching;
mod websocket;
mod world;
mod world_itself;
