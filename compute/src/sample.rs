//! Where the original's roots sample their outputs (spec §2), found in about half the time that shuffling all positions takes.
//!
//! The shuffle swaps position i with a drawn j ≤ i, for i from the last down to 1. Only 256 positions of the result are asked for: so the
//! draws are made as the shuffle makes them, and then undone from the last to the first while only those 256 are followed. Which
//! places are followed fits into a bitmap that stays in the cache, where the shuffled positions would not.

use rand_chacha::ChaCha12Rng;
use rand08::{RngCore, SeedableRng};
use tops_protocol::work::v1::{SAMPLE_LEN, ShapeV1};

/// The same as `tops_protocol::work::v1::sample_positions`.
pub(crate) fn positions(seed16: &[u8; 16], shape: ShapeV1) -> Vec<u32> {
    let len = shape.m() * shape.n();
    let draws = draws(ChaCha12Rng::from_seed(*blake3::hash(seed16).as_bytes()), len);

    let followed = u32::try_from(SAMPLE_LEN).map_or(len, |sample| sample.min(len));
    let mut places: Vec<u32> = (0..followed).collect();
    let mut bitmap = vec![0_u64; len as usize / 64 + 1];
    let has = |bitmap: &[u64], place: u32| bitmap[place as usize / 64] >> (place % 64) & 1 == 1;
    places.iter().for_each(|&place| bitmap[place as usize / 64] |= 1 << (place % 64));
    for (i, &j) in (1..len).zip(draws.iter().rev()) {
        // Past the sample, nothing has come to place i before its own turn.
        let (at_i, at_j) = (i < followed, has(&bitmap, j));
        if !at_i && !at_j {
            continue;
        }
        let at_i = has(&bitmap, i);
        for place in &mut places {
            if *place == i {
                *place = j;
            } else if *place == j {
                *place = i;
            }
        }
        for (place, set) in [(i, at_j), (j, at_i)] {
            let (word, bit) = (&mut bitmap[place as usize / 64], 1 << (place % 64));
            if set { *word |= bit } else { *word &= !bit }
        }
    }
    places
}

/// What rand 0.8 draws for a shuffle of `len` places: for each i from `len − 1` down to 1, a number up to i. A word v is scaled to
/// ⌊v·(i + 1) / 2^32⌋ and refused when the rest of that division shows a bias. Up to half of the words are refused, at random, so this
/// loop has no branch on it.
fn draws(mut stream: ChaCha12Rng, len: u32) -> Vec<u32> {
    let mut out = vec![0_u32; len as usize];
    let (mut at, mut range) = (0, len);
    let mut bytes = [0; 4096];
    while range > 1 {
        stream.fill_bytes(&mut bytes);
        for word in bytes.as_chunks::<4>().0 {
            let scaled = u64::from(u32::from_le_bytes(*word)) * u64::from(range);
            let zone = (range << range.leading_zeros()).wrapping_sub(1);
            out[at] = (scaled >> 32) as u32;
            // At range 1 nothing is drawn any more; what is left of the words is not used.
            let taken = u32::from(scaled as u32 <= zone && range > 1);
            at += taken as usize;
            range -= taken;
        }
    }
    out.truncate(at);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use tops_protocol::work::v1;

    #[test]
    fn positions_are_those_of_the_shuffle() {
        for (seed, (m, n)) in
            [(1, 1), (1, 2), (2, 2), (15, 17), (16, 16), (1, 257), (300, 1), (64, 64), (257, 1000), (1024, 1024)].into_iter().enumerate()
        {
            let shape = ShapeV1::new(m, n, 1).unwrap();
            let seed16 = [u8::try_from(seed).unwrap(); 16];
            assert_eq!(positions(&seed16, shape), v1::sample_positions(&seed16, shape), "{m}x{n}");
        }
    }
}
