//! Notes as they arrive, and how others check them: one by one, with `bls12_381`.

use bls12_381::hash_to_curve::HashToCurve;
use bls12_381::{G1Affine, G1Projective, G2Affine, G2Prepared, Gt, multi_miller_loop};
use federation_tbs::curve::ExpandXmd;
use federation_tbs::pool::map_pieces;
use federation_tbs::{
    BatchItem, Message, PublicKey, SecretKeyShare, Signature, sign, verify_batch, verify_batch_on_pool,
};

/// Notes of a batch.
pub const NOTES: usize = 256;
/// Denominations in it.
pub const DENOMINATIONS: usize = 8;

/// A note's bytes.
#[derive(Clone, Copy)]
pub struct Note {
    /// What is signed.
    pub nonce: [u8; 32],
    /// The signature, compressed.
    pub signature: [u8; 48],
    /// The number of its key.
    pub denomination: usize,
}

/// A mint's keys (here with their secrets), known long before the notes.
pub struct Keys {
    /// Of each denomination.
    pub public: Vec<PublicKey>,
    secret: Vec<SecretKeyShare>,
    prepared: Vec<G2Prepared>,
    minus_generator: G2Prepared,
}

impl Keys {
    /// Some keys.
    pub fn new() -> Result<Self, String> {
        let secret: Vec<SecretKeyShare> = (1..)
            .map(|byte| SecretKeyShare::from_bytes(&[byte; 32]).map_err(|error| error.to_string()))
            .take(DENOMINATIONS)
            .collect::<Result<_, _>>()?;
        let mut keys = Self {
            public: Vec::new(),
            secret,
            prepared: Vec::new(),
            minus_generator: G2Prepared::from(-G2Affine::generator()),
        };
        for secret in &keys.secret {
            let bytes = secret.public().to_bytes();
            keys.public.push(PublicKey::from_bytes(&bytes).map_err(|error| error.to_string())?);
            let point: Option<G2Affine> = G2Affine::from_compressed(&bytes).into();
            keys.prepared.push(G2Prepared::from(point.ok_or("the reference refuses a key")?));
        }
        Ok(keys)
    }

    /// Valid notes, their denominations mixed.
    pub fn notes(&self, count: usize) -> Result<Vec<Note>, String> {
        let note = |number: usize| {
            let mut nonce = [0; 32];
            nonce.iter_mut().zip(number.to_le_bytes()).for_each(|(to, from)| *to = from);
            let denomination = number % DENOMINATIONS;
            // Signed without blinding: the same signature.
            let message = Message::hash(&nonce).to_bytes();
            let message = federation_tbs::BlindedMessage::from_bytes(&message).ok()?;
            let signature = sign(&message, self.secret.get(denomination)?).to_bytes();
            Some(Note { nonce, signature, denomination })
        };
        (0..count).map(note).collect::<Option<_>>().ok_or_else(|| "notes can't be made".to_owned())
    }

    /// The batch from bytes to verdict, on the calling thread.
    pub fn all_valid(&self, notes: &[Note]) -> bool {
        self.all_verified(&decode(notes), notes.len(), verify_batch)
    }

    /// The same on the pool.
    pub fn all_valid_on_pool(&self, notes: &[Note]) -> bool {
        let decoded = map_pieces(notes.iter().collect(), 16, decode);
        self.all_verified(&decoded, notes.len(), verify_batch_on_pool)
    }

    fn all_verified(
        &self,
        decoded: &[(&Note, Signature)],
        expected: usize,
        verify: fn(&[BatchItem<'_>]) -> Vec<bool>,
    ) -> bool {
        let items: Vec<BatchItem<'_>> = decoded
            .iter()
            .filter_map(|(note, signature)| {
                let key = self.public.get(note.denomination)?;
                Some(BatchItem { message: &note.nonce, signature, key })
            })
            .collect();
        items.len() == expected && verify(&items).iter().all(|valid| *valid)
    }

    /// One note with `bls12_381` from bytes to verdict: hash, decompress, one multi-Miller loop over prepared keys.
    pub fn reference(&self, note: &Note) -> bool {
        points(note).is_some_and(|points| self.reference_check(&points, note.denomination))
    }

    /// The last part of it alone, the pairings.
    pub fn reference_check(&self, points: &[G1Affine; 2], denomination: usize) -> bool {
        let ([signature, message], Some(key)) = (points, self.prepared.get(denomination)) else {
            return false;
        };
        let product = multi_miller_loop(&[(signature, &self.minus_generator), (message, key)]);
        product.final_exponentiation() == Gt::identity()
    }
}

fn decode<'a>(notes: impl IntoIterator<Item = &'a Note>) -> Vec<(&'a Note, Signature)> {
    let signature = |note: &'a Note| Some((note, Signature::from_bytes(&note.signature).ok()?));
    notes.into_iter().filter_map(signature).collect()
}

/// A note's signature and hash, as points of `bls12_381`.
pub fn points(note: &Note) -> Option<[G1Affine; 2]> {
    let signature: Option<G1Affine> = G1Affine::from_compressed(&note.signature).into();
    let hash = <G1Projective as HashToCurve<ExpandXmd>>::hash_to_curve(note.nonce, Message::DST);
    Some([signature?, hash.into()])
}
