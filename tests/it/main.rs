//! The integration tests: one binary, one file a promise. See `world` for what they play with.

mod access_policy;
mod admin;
mod balancing;
mod cli;
mod conf;
mod demo;
mod explain;
mod explained;
mod gate;
mod geo_block;
mod headers;
mod health;
mod http2;
mod middlewares;
mod reload;
mod replies;
mod rewriting;
mod routing;
mod stop;
mod streaming;
mod user_agents;
mod watching;
mod websocket;
mod world;
mod world_itself;
