//! One file a subcommand: its arguments, and a `run` that gives an answer. None of them holds a rule of the protocol.

pub mod ask;
pub mod attempt;
pub mod bench;
pub mod config;
pub mod devices;
pub mod doctor;
pub mod key;
pub mod mine;
pub mod node;
pub mod outbox;
pub mod shell;
pub mod table;
pub mod verify;
pub mod work;

use tops_protocol::Shape;

/// `m,n,k` as three numbers.
pub fn three_numbers(text: &str) -> Result<[u32; 3], String> {
    let numbers: Vec<u32> = text.split([',', 'x']).map(|part| part.trim().parse()).collect::<Result<_, _>>().unwrap_or_default();
    numbers.try_into().map_err(|_| "a shape is m,n,k, such as 16,256,256".into())
}

/// A v2 shape.
pub fn shape(text: &str) -> Result<Shape, String> {
    let [m, n, k] = three_numbers(text)?;
    Shape::new(m, n, k).ok_or_else(|| "a v2 shape has m a multiple of 16 in 16..=8192, and n and k powers of two in 256..=8192".into())
}
