//! The reference itself, over all cores: what decides when a device and a claim, or two devices, differ.
//!
//! It is `tops_protocol::work` and nothing else. A row of the outputs depends on its own row of activations only, so each row goes
//! through both layers by itself, and rows and attempts are shared out over the cores.

use rayon::prelude::*;
use tops_protocol::work::{self, Weights, v1};
use tops_protocol::{Attempt, Root, Shape};

use super::jobs::Work;

/// With the weights of the shape that it was last asked for.
#[derive(Default)]
pub(super) struct Reference {
    weights: Option<(Shape, Weights)>,
}

impl Reference {
    /// The roots in the order of the work.
    pub(super) fn roots(&mut self, work: &Work) -> Vec<Root> {
        match work {
            Work::V2(attempts) => {
                let mut roots = Vec::with_capacity(attempts.len());
                for same in attempts.chunk_by(|a, b| a.shape == b.shape) {
                    let weights = self.weights(same[0].shape);
                    roots.par_extend(same.par_iter().map(|attempt| root(attempt, weights)));
                }
                roots
            }
            Work::V1(attempts) => attempts.par_iter().map(|a| v1::root(&a.prev_hash, a.nonce, a.shape, a.variant)).collect(),
        }
    }

    fn weights(&mut self, shape: Shape) -> &Weights {
        let kept = self.weights.take().filter(|(_, weights)| weights.fit(shape));
        &self.weights.insert(kept.unwrap_or_else(|| (shape, Weights::new(shape)))).1
    }
}

/// `work::root`, a row at a time.
fn root(attempt: &Attempt, weights: &Weights) -> Root {
    let (n, k) = (attempt.shape.n() as usize, attempt.shape.k() as usize);
    let [s1, s2] = attempt.shape.shifts();
    let seed = work::unit_id(attempt);
    let a = work::activations::activations(&seed, attempt.shape);
    let mut y2 = vec![0; a.len() / k * n];
    a.par_chunks_exact(k).zip(y2.par_chunks_exact_mut(n)).for_each(|(row, out)| {
        let y1 = work::gemm::layer(row, weights.w1(), 1, n, k, s1);
        out.copy_from_slice(&work::gemm::layer(&y1, weights.w2(), 1, n, n, s2));
    });
    let digest = work::output_digest(&y2, a.len() / k, n);
    work::finish_root(&seed, &digest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tops_protocol::{Millis, Nonce, PublicKey};

    #[test]
    fn rows_apart_give_the_root_of_the_whole() {
        let shapes = [(16, 256, 256), (16, 256, 256), (48, 512, 256), (32, 256, 1024), (16, 256, 256)];
        let attempts: Vec<Attempt> = shapes
            .into_iter()
            .zip(7..)
            .map(|((m, n, k), nonce)| Attempt {
                prev_hash: Root([4; 32]),
                miner: PublicKey([2; 33]),
                nonce: Nonce::new(nonce).unwrap(),
                timestamp: Millis(1),
                shape: Shape::new(m, n, k).unwrap(),
            })
            .collect();
        let expected: Vec<Root> = attempts.iter().map(|attempt| work::root(attempt, &Weights::new(attempt.shape))).collect();
        assert_eq!(Reference::default().roots(&Work::V2(attempts)), expected);
    }
}
