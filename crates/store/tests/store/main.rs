//! The store's suite. What is checked of rows is written against [`subject::Subject`], so that another database can be
//! judged by the same tests.

#![allow(clippy::unwrap_used)] // a test that cannot go on may panic

mod audit;
mod cells;
mod children;
mod copies;
mod crash;
mod forged;
mod lives;
mod model;
mod postgres;
mod recorded;
mod restores;
mod subject;
mod trouble;
