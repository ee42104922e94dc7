//! The engine.
mod config;
mod io;
mod view;
pub use config::*;
pub use io::*;
pub use view::*;
