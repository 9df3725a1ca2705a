//! Makes an enumeration of faults, and a test of each.

macro_rules! faults {
    ($($(#[doc = $what:literal])+ $test:ident $fault:ident: $($promise:ident),+;)*) => {
        /// The one thing that a wrong store does wrong.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Fault {
            $($(#[doc = $what])+ $fault,)*
        }

        impl Fault {
            pub(crate) const ALL: &'static [Self] = &[$(Self::$fault),*];

            /// What it does.
            pub(crate) const fn what(self) -> &'static str {
                match self { $(Self::$fault => concat!($($what),+),)* }
            }

            /// The promises that it breaks: the kit must convict it of one of them.
            pub(crate) const fn promises(self) -> &'static [Promise] {
                match self { $(Self::$fault => &[$(Promise::$promise),+],)* }
            }
        }

        /// One test a mutant.
        mod convicted {
            use super::Fault;
            use crate::mutants::convict;

            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
                async fn $test() {
                    convict(Fault::$fault).await;
                }
            )*
        }
    };
}

pub(crate) use faults;
