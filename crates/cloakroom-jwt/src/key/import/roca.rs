//! The fingerprint of RSA keys with the ROCA weakness (CVE-2017-15361).
//!
//! The weak library made primes of the form `k·M + (65537^a mod M)`, where `M` is the product of the first
//! primes. So a modulus of it is a power of 65537 modulo each of these primes. A random modulus is that for
//! all of them with a probability far below 2⁻¹⁰⁰. (Nemec et al., "The Return of Coppersmith's Attack", §3.)

/// The last prime that divides `M` for keys of 2048 bits. `M` of longer keys has more divisors, and these
/// among them.
const LAST: u32 = 701;

const GENERATOR: u32 = 65_537;

/// Whether a modulus, big-endian, is a power of 65537 modulo each of the first primes.
pub(super) fn has_fingerprint(modulus: &[u8]) -> bool {
    (3..=LAST).filter(|number| is_prime(*number)).all(|prime| {
        let residue =
            modulus.iter().fold(0, |residue, byte| (residue * 256 + u32::from(*byte)) % prime);
        is_power(residue, prime)
    })
}

fn is_prime(number: u32) -> bool {
    (2..number)
        .take_while(|divisor| divisor * divisor <= number)
        .all(|divisor| !number.is_multiple_of(divisor))
}

/// Whether `residue` is a power of the generator modulo `prime`.
fn is_power(residue: u32, prime: u32) -> bool {
    let mut power = 1;
    for _ in 0..prime {
        if power == residue {
            return true;
        }
        power = power * (GENERATOR % prime) % prime;
    }
    false
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::KeyPair as _;

    use super::*;

    /// 65537¹²⁸, which has 2049 bits, and is a power of 65537 modulo everything.
    fn power() -> Vec<u8> {
        let mut number = vec![1_u8];
        for _ in 0..128 {
            // number · 2¹⁶ + number.
            let mut shifted = number.clone();
            shifted.extend([0, 0]);
            let mut carry = 0;
            for at in 0..shifted.len() {
                let place = shifted.len() - 1 - at;
                let add = number.len().checked_sub(at + 1).map_or(0, |own| number[own]);
                let sum = u16::from(shifted[place]) + u16::from(add) + carry;
                shifted[place] = sum as u8;
                carry = sum >> 8;
            }
            if carry > 0 {
                shifted.insert(0, carry as u8);
            }
            number = shifted;
        }
        number
    }

    #[test]
    fn a_power_of_the_generator_has_the_fingerprint() {
        let power = power();
        assert_eq!(power.len(), 257);
        assert!(has_fingerprint(&power));
        // The neighbours of a power are powers modulo few primes.
        let mut next = power.clone();
        *next.last_mut().unwrap() = next.last().unwrap().wrapping_add(2);
        assert!(!has_fingerprint(&next));
    }

    #[test]
    fn a_usual_modulus_has_not() {
        let key = aws_lc_rs::rsa::KeyPair::generate(aws_lc_rs::rsa::KeySize::Rsa2048).unwrap();
        let modulus = key.public_key();
        assert!(!has_fingerprint(modulus.modulus().big_endian_without_leading_zero()));
    }
}
