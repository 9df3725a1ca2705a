//! As much arithmetic on big-endian integers of one size as it takes to bend a signature.

use std::cmp::Ordering;

/// `a + b`, or `None` if it needs more bytes.
pub(super) fn add(a: &[u8], b: &[u8]) -> Option<Vec<u8>> {
    let mut carry = 0;
    let mut sum: Vec<u8> = (a.iter().rev().zip(b.iter().rev()))
        .map(|(&a, &b)| {
            let digit = u16::from(a) + u16::from(b) + carry;
            carry = digit >> 8;
            digit.to_le_bytes()[0]
        })
        .collect();
    sum.reverse();
    (carry == 0).then_some(sum)
}

/// `a - b`, for `a` ≥ `b`.
pub(super) fn sub(a: &[u8], b: &[u8]) -> Vec<u8> {
    assert!(a.len() == b.len() && a.cmp(b) != Ordering::Less, "no negative numbers here");
    let mut borrow = 0;
    let mut difference: Vec<u8> = (a.iter().rev().zip(b.iter().rev()))
        .map(|(&a, &b)| {
            let digit = 256 + u16::from(a) - u16::from(b) - borrow;
            borrow = u16::from(digit < 256);
            digit.to_le_bytes()[0]
        })
        .collect();
    difference.reverse();
    difference
}

/// `a * b`, in as many bytes as both have together.
pub(super) fn mul(a: &[u8], b: &[u8]) -> Vec<u8> {
    let mut product = vec![0; a.len() + b.len()];
    for (i, &a) in a.iter().enumerate().rev() {
        let mut carry = 0;
        for (j, &b) in b.iter().enumerate().rev() {
            let digit = u32::from(a) * u32::from(b) + u32::from(product[i + j + 1]) + carry;
            product[i + j + 1] = digit.to_le_bytes()[0];
            carry = digit >> 8;
        }
        product[i] = carry.to_le_bytes()[0];
    }
    product
}

/// A small number of `len` bytes.
pub(super) fn small(value: u8, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    bytes[len - 1] = value;
    bytes
}

pub(super) fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = (text.chars().filter_map(|c| c.to_digit(16)))
        .map(|digit| u8::try_from(digit).unwrap())
        .collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

#[test]
fn the_arithmetic_is_right() {
    assert_eq!(add(&[1, 255], &[0, 1]), Some(vec![2, 0]));
    assert_eq!(add(&[255, 255], &[0, 1]), None);
    assert_eq!(sub(&[2, 0], &[0, 1]), [1, 255]);
    assert_eq!(mul(&[1, 0], &[255, 255]), [0, 255, 255, 0]);
    assert_eq!(mul(&[255, 255], &[255, 255]), [255, 254, 0, 1]);
    assert_eq!(small(7, 3), [0, 0, 7]);
    assert_eq!(hex("00 ff1A"), [0, 255, 26]);
}
