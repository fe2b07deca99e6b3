//! End to end: the two programs as people and machines use them, with a real broker, real ports and real disks.
//!
//! Decides what was promised to whoever runs them. It knows nothing of their insides: it meets them through
//! commands, REST, the local API and files that are documented. Rarer orders of events are the simulation's work.

mod access;
mod answers;
mod audit;
mod backup;
mod bad_input;
mod client;
mod commands;
mod conformance;
mod content;
mod disks;
mod drift;
mod enrolling;
mod examples;
mod faults;
mod feeds;
mod fleet;
mod hostile;
mod impostors;
mod kills;
mod models;
mod monitors;
mod postgres;
mod programs;
mod receiver;
mod rest;
mod rollouts;
mod samples;
mod service;
mod shadow;
mod sources;
mod waiting;
mod webhooks;
mod whole_loop;
