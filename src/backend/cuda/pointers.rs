//! A kernel's pointers, with what they point to and for how long, and how they and other arguments come of what the
//! operations have.

use super::launch::Dropout;
use super::memory::DeviceBuffer;
use super::{Cuda, CudaElement};
use crate::backend::{self, Ints, Tensor, Value};
use half::bf16;
use std::any::TypeId;
use std::marker::PhantomData;
use std::num::NonZeroU64;

/// What a kernel reads: `const T*`. An `Option` of one is a pointer that may be null.
#[repr(transparent)]
pub(super) struct In<'a, T> {
    address: NonZeroU64,
    memory: PhantomData<&'a T>,
}

/// What a kernel writes, or reads and writes: `T*`.
#[repr(transparent)]
pub(super) struct Out<'a, T> {
    address: NonZeroU64,
    memory: PhantomData<&'a mut T>,
}

impl<T> Clone for In<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for In<'_, T> {}

macro_rules! pointer {
    ($Pointer:ident) => {
        impl<'a, T> $Pointer<'a, T> {
            fn new(address: u64) -> Self {
                let address = NonZeroU64::new(address).expect("memory of the device has an address");
                $Pointer { address, memory: PhantomData }
            }

            /// The same if `T` is `U`.
            pub fn of_type<U: 'static>(self) -> Option<$Pointer<'a, U>>
            where
                T: 'static,
            {
                (TypeId::of::<T>() == TypeId::of::<U>())
                    .then_some($Pointer { address: self.address, memory: PhantomData })
            }
        }
    };
}
pointer!(In);
pointer!(Out);

/// Where row `first` of a tensor is.
fn address_of_row<E: CudaElement, T: Value>(tensor: &Tensor<Cuda<E>, T>, first: usize) -> u64 {
    assert!(first <= tensor.rows(), "rows from {first} on of {:?}", tensor.shape());
    tensor.buffer().address() + (first * tensor.row_len() * size_of::<T>()) as u64
}

impl<'a, T: Value> In<'a, T> {
    /// From row `first` on.
    pub fn rows<E: CudaElement>(tensor: &'a Tensor<Cuda<E>, T>, first: usize) -> Self {
        In::new(address_of_row(tensor, first))
    }
}

impl<'a, T: Value> Out<'a, T> {
    /// From row `first` on.
    pub fn rows<E: CudaElement>(tensor: &'a mut Tensor<Cuda<E>, T>, first: usize) -> Self {
        Out::new(address_of_row(tensor, first))
    }

    pub fn address(&self) -> u64 {
        self.address.get()
    }
}

/// The elements, for a kernel that there is in bf16 alone.
pub(super) fn in_bf16<E: CudaElement>(x: &Tensor<Cuda<E>, E>) -> In<'_, bf16> {
    let x: In<E> = x.pass();
    x.of_type().expect("this kernel computes in bf16")
}

/// As [`in_bf16`].
pub(super) fn out_bf16<E: CudaElement>(x: &mut Tensor<Cuda<E>, E>) -> Out<'_, bf16> {
    let x: Out<E> = x.pass();
    x.of_type().expect("this kernel computes in bf16")
}

/// f32 memory for partial sums; what it holds is undefined.
pub(super) struct Scratch {
    address: u64,
}

impl Scratch {
    pub fn new(buffer: &DeviceBuffer<f32>) -> Self {
        Scratch { address: buffer.address() }
    }
}

/// A value that a kernel's parameter of the type `P` gets.
pub(super) trait Pass<P> {
    fn pass(self) -> P;
}

macro_rules! passed_as_they_are {
    ($($ty:ty)+) => {
        $(impl Pass<$ty> for $ty {
            fn pass(self) -> $ty {
                self
            }
        })+
    };
}
passed_as_they_are!(f32 i32 i64);

impl Pass<i64> for usize {
    fn pass(self) -> i64 {
        i64::try_from(self).expect("sizes fit into i64")
    }
}

impl Pass<i32> for bool {
    fn pass(self) -> i32 {
        self.into()
    }
}

impl Pass<Dropout> for Option<backend::Dropout> {
    fn pass(self) -> Dropout {
        self.map_or(Dropout::NONE, Dropout::from)
    }
}

impl<'a, S: bytemuck::NoUninit> Pass<&'a S> for &'a S {
    fn pass(self) -> &'a S {
        self
    }
}

impl<P, T: Pass<P>> Pass<Option<P>> for Option<T> {
    fn pass(self) -> Option<P> {
        self.map(T::pass)
    }
}

impl<'a, T> Pass<In<'a, T>> for In<'a, T> {
    fn pass(self) -> Self {
        self
    }
}

impl<'a, T> Pass<Out<'a, T>> for Out<'a, T> {
    fn pass(self) -> Self {
        self
    }
}

impl<'a, E: CudaElement, T: Value> Pass<In<'a, T>> for &'a Tensor<Cuda<E>, T> {
    fn pass(self) -> In<'a, T> {
        In::new(self.buffer().address())
    }
}

impl<'a, E: CudaElement, T: Value> Pass<Out<'a, T>> for &'a mut Tensor<Cuda<E>, T> {
    fn pass(self) -> Out<'a, T> {
        Out::new(self.buffer().address())
    }
}

impl<'a, E: CudaElement> Pass<In<'a, i32>> for Ints<'a, Cuda<E>> {
    fn pass(self) -> In<'a, i32> {
        In::new(self.buffer().address() + (self.start() * size_of::<i32>()) as u64)
    }
}

impl<'a, T> Pass<In<'a, T>> for &'a Scratch {
    fn pass(self) -> In<'a, T> {
        In::new(self.address)
    }
}

impl<'a, T> Pass<Out<'a, T>> for &'a mut Scratch {
    fn pass(self) -> Out<'a, T> {
        Out::new(self.address)
    }
}
