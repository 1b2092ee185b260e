//! What `greeter.proto` describes, as code: messages, client and server.
//!
//! `greeter.v1.rs` is generated, and checked in so that neither `protoc` nor a build script is needed.
//! To make it again after a change, run a small program with `protox` 0.10 and `tonic-prost-build` 0.14:
//!
//! ```text
//! let files = protox::compile(["examples/greeter.proto"], ["examples"])?;
//! tonic_prost_build::configure().out_dir("examples/greeter").compile_fds(files)?;
//! ```

// Each program that includes this module uses a part of it, and how generated code is written is not
// ours to judge.
#![allow(dead_code, clippy::all, clippy::use_self)]

include!("greeter.v1.rs");
