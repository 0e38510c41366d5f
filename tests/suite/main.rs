//! The whole suite, one file a subject. Each test has a database of its own on a real server: the
//! one that DATABASE_URL names, or a private one that lives as long as this process.

mod support;

mod accounts;
mod borrowers;
mod canaries;
mod chunks;
mod config_entries;
mod connecting;
mod constraints;
mod conversation_trigger;
mod conversations;
mod document_claims;
mod documents;
mod enums;
mod extraction_jobs;
mod faults;
mod health;
mod hostile;
mod job_listener;
mod job_loss;
mod job_queue;
mod job_worker;
mod messages;
mod migrations;
mod other_programs;
mod partitioning;
mod plans;
mod pool;
mod projects;
mod reads;
mod round_trips;
mod schema_laws;
mod secrets;
mod session_tokens;
mod sessions;
mod sources;
mod startup;
mod templates;
mod tls;
mod transactions;
mod transcripts;
mod turns;
mod unit_of_work;
mod users;
mod web;
