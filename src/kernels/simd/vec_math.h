/* vec_math.h - exponentials and what is made of them, over the vector layer included before it.
 *
 * Lanes do not see each other, so a value's bits do not depend on its lane or on what stands beside it.  The polynomials are
 * minimax fits in relative error (Remez), forced through 1 at 0 so that an exponential of 0 is exactly 1: a decay of a state that
 * were off by a fraction of an ulp there would be a bias that grows with every token. */
#ifndef FM_KERNELS_SIMD_VEC_MATH_H
#define FM_KERNELS_SIMD_VEC_MATH_H

#define VLOG2E 1.44269504f

/* 2^t.  Polynomial error 9.2e-8; within 2.1 ulp.  2^-inf = 0, 2^inf = inf, NaN stays. */
FM_INLINE vf vexp2(vf t)
{
    vf n;
    const vf f = vsplit(t, &n);
    vf p = vfma(vset(0.00132647271f), f, vset(0.00967151264f));
    p = vfma(p, f, vset(0.0555073374f));
    p = vfma(p, f, vset(0.240222421f));
    p = vfma(p, f, vset(0.693146978f));
    return vscale(vfma(p, f, vset(1.0f)), n);
}

/* e^x.  ln 2 in two parts, the first of 10 bits, so that taking n times it away is exact; polynomial error 2.0e-9;
 * within 1.1 ulp.  e^-inf = 0, e^inf = inf, NaN stays. */
FM_INLINE vf vexp(vf x)
{
    const vf cut = vmin(vset(110.0f), vmax(vset(-110.0f), x));
    const vf n = vround(vmul(cut, vset(VLOG2E)));
    const vf r = vfnma(n, vset(-2.12194440e-4f), vfnma(n, vset(0.693359375f), cut));
    vf p = vfma(vset(0.00138436443f), r, vset(0.00837416336f));
    p = vfma(p, r, vset(0.0416680026f));
    p = vfma(p, r, vset(0.166664312f));
    p = vfma(p, r, vset(0.499999942f));
    p = vfma(p, r, vset(1.0f));
    return vscale(vfma(p, r, vset(1.0f)), n);
}

/* log(1 + e) for e in [0, 1], as e times a polynomial with error 4.7e-9: e itself for tiny e. */
FM_INLINE vf vlog1p_unit(vf e)
{
    vf p = vfma(vset(-0.00324402461f), e, vset(0.0198514598f));
    p = vfma(p, e, vset(-0.0569595295f));
    p = vfma(p, e, vset(0.106036544f));
    p = vfma(p, e, vset(-0.153055923f));
    p = vfma(p, e, vset(0.196759392f));
    p = vfma(p, e, vset(-0.249541336f));
    p = vfma(p, e, vset(0.333299624f));
    p = vfma(p, e, vset(-0.499999024f));
    return vmul(vfma(p, e, vset(1.0f)), e);
}

/* log(1 + e^v) = max(v, 0) + log(1 + e^-|v|).  Above 20 the second term is under half an ulp of v, so the cut that the
 * specification makes there needs no branch. */
FM_INLINE vf vsoftplus(vf v)
{
    return vadd(vmax(vset(0.0f), v), vlog1p_unit(vexp(vsub(vset(0.0f), vabs(v)))));
}

FM_INLINE vf vsilu(vf v)
{
    return vdiv(v, vadd(vset(1.0f), vexp(vsub(vset(0.0f), v))));
}

#endif
