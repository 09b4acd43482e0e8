//! The integration tests: one binary, one file a promise. See `world` for what they play with.

mod admin;
mod balancing;
mod cli;
mod conf;
mod demo;
mod explain;
mod explained;
mod gate;
mod headers;
mod health;
mod http2;
mod jwt;
mod jwt_keys;
mod middlewares;
mod reload;
mod replies;
mod rewriting;
mod routing;
mod stop;
mod streaming;
mod watching;
mod websocket;
mod world;
mod world_itself;
