//! The whole suite, one file a subject. Each test has a database of its own on a real server: the
//! one that DATABASE_URL names, or a private one that lives as long as this process.

mod support;

mod borrowers;
mod document_claims;
mod documents;
mod users;
mod web;
