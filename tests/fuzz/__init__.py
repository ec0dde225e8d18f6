"""The torture test: calls drawn from a number, right ones and wrong ones, on arrays that end where
memory ends.

A case is one number and comes out the same again. It is run by the NumPy backend and by the kernels
of every instruction set, on one thread and on several. All have to agree: in what they return, to a
tolerance, and threads to the bit; in what they refuse, to the word. Nothing given may be written,
and a refused call may change no state.

    cd tests
    python -m fuzz --seconds 600           many cases, new ones each time
    python -m fuzz --seed 7 --cases 1000   these
    python -m fuzz --case 7                one, and what it calls

memory.py has the arrays, draws.py what is drawn, programs.py the calls, judge.py who is right, and
__main__.py the processes: one that dies or hangs is reported with the number of its case.
"""
