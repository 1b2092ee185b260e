//! Something to print on, to see afterwards what is on it.

// Each test file is a crate of its own and uses a part of this.
#![allow(dead_code)]

use std::error::Error;
use std::fmt::Debug;
use std::io;
use std::sync::Arc;
use std::sync::Mutex;

use tracing_subscriber::fmt::MakeWriter;

/// Everything that was printed, by anybody.
#[derive(Clone, Default)]
pub struct Paper(Arc<Mutex<Vec<u8>>>);

impl Paper {
    pub fn write(&self, text: impl AsRef<str>) {
        let mut paper = self.0.lock().unwrap();
        paper.extend_from_slice(text.as_ref().as_bytes());
        paper.push(b'\n');
    }

    pub fn debug(&self, value: &impl Debug) {
        self.write(format!("{value:?} {value:#?}"));
    }

    pub fn error(&self, error: &(dyn Error + 'static)) {
        let mut next = Some(error);
        while let Some(error) = next {
            self.write(format!("{error} {error:?} {error:#?}"));
            next = error.source();
        }
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }
}

impl io::Write for Paper {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Paper {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}
