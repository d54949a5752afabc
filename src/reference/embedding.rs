//! The embedding tables and the LayerNorm after them.

use super::layer_norm::{LayerNorm, layer_norm};

/// What goes into the embedding; tables `(rows, H)`, LayerNorm `(H,)`.
#[derive(Clone)]
pub struct Embedding {
    pub ids: Vec<i32>,
    pub positions: Vec<i32>,
    pub word: Vec<f64>,
    pub position: Vec<f64>,
    pub token_type: Vec<f64>,
    pub weight: Vec<f64>,
    pub bias: Vec<f64>,
    pub eps: f64,
    /// Dropout factors of the result, `(T, H)`.
    pub mask: Vec<f64>,
}

/// `mask LayerNorm(word[id] + position[pos] + token_type[0])`
pub fn embedding(args: &Embedding) -> LayerNorm {
    normalized(sum(args), args)
}

/// `word[id] + position[pos] + token_type[0]`
pub fn sum(args: &Embedding) -> Vec<f64> {
    let h = args.weight.len();
    let mut sum = Vec::new();
    for (&id, &position) in args.ids.iter().zip(&args.positions) {
        for j in 0..h {
            let (word, position) = (args.word[id as usize * h + j], args.position[position as usize * h + j]);
            sum.push(word + position + args.token_type[j]);
        }
    }
    sum
}

/// `mask LayerNorm(sum)`
pub fn normalized(sum: Vec<f64>, args: &Embedding) -> LayerNorm {
    let mut result = layer_norm(sum, &args.weight, &args.bias, args.eps);
    for (o, m) in result.out.iter_mut().zip(&args.mask) {
        *o *= m;
    }
    result
}
