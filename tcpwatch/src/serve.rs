//! `tcpwatch serve`: the agent for a fleet. The run is as live; what it finds is kept in a model,
//! which an HTTP server on a thread of its own shows as metrics and as JSON.
//!
//! ```text
//!  pipeline ─▶ model::Feed (a sink) ─┐
//!  run      ─▶ model::Feed (a monitor)┴▶ Model ─▶ Snapshot ─▶ exposition ─▶ routes ─▶ http
//! ```

mod auth;
pub mod command;
mod connections;
pub mod exposition;
mod findings;
mod http;
mod lingering;
pub mod metrics;
pub mod model;
mod negotiate;
pub mod own;
pub mod page;
mod routes;
pub mod snapshot;
mod tls;
mod turns;
pub mod web_config;
