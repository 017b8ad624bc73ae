/* vec_math.h - exponentials and what is made of them, over the vector layer included before it.
 *
 * Lanes do not see each other, so a value's bits do not depend on its lane or on what stands beside it.  The polynomials are
 * minimax fits in relative error (Remez), forced through 1 at 0 so that an exponential of 0 is exactly 1: a decay of a state that
 * were off by a fraction of an ulp there would be a bias that grows with every token. */
#ifndef FM_KERNELS_SIMD_VEC_MATH_H
#define FM_KERNELS_SIMD_VEC_MATH_H

#include "kernels/simd/unroll.h"

#define VLOG2E 1.44269504f

/* The most vectors that a function below takes side by side.  One alone waits for each of its own steps. */
enum { VSIDE = 4 };

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

/* The same bits for |t| <= VNEAR, where neither the number nor what it is made of leaves the normal ones: n vectors side by side,
 * since each waits for itself. */
#define VNEAR 125.0f
FM_INLINE void vexp2_near(vf *t, int n)
{
    static const float c[] = {0.00967151264f, 0.0555073374f, 0.240222421f, 0.693146978f, 1.0f};
    vf p[VSIDE], whole[VSIDE];
    UNROLL for (int i = 0; i < n; i++) t[i] = vsplit_near(t[i], &whole[i]);
    UNROLL for (int i = 0; i < n; i++) p[i] = vset(0.00132647271f);
    UNROLL for (int k = 0; k < 5; k++) UNROLL for (int i = 0; i < n; i++) p[i] = vfma(p[i], t[i], vset(c[k]));
    UNROLL for (int i = 0; i < n; i++) t[i] = vscale_near(p[i], whole[i]);
}

/* e^x.  ln 2 in two parts, the first of 10 bits, so that taking n times it away is exact; polynomial error 2.0e-9;
 * within 1.1 ulp.  e^-inf = 0, e^inf = inf, NaN stays. */
FM_INLINE void vexp_side(vf *x, int n)
{
    static const float c[] = {0.00837416336f, 0.0416680026f, 0.166664312f, 0.499999942f, 1.0f, 1.0f};
    vf p[VSIDE], whole[VSIDE];
    UNROLL for (int i = 0; i < n; i++) x[i] = vmin(vset(110.0f), vmax(vset(-110.0f), x[i]));
    UNROLL for (int i = 0; i < n; i++) whole[i] = vround(vmul(x[i], vset(VLOG2E)));
    UNROLL for (int i = 0; i < n; i++) x[i] = vfnma(whole[i], vset(0.693359375f), x[i]);
    UNROLL for (int i = 0; i < n; i++) x[i] = vfnma(whole[i], vset(-2.12194440e-4f), x[i]);
    UNROLL for (int i = 0; i < n; i++) p[i] = vset(0.00138436443f);
    UNROLL for (size_t k = 0; k < FM_COUNT(c); k++) UNROLL for (int i = 0; i < n; i++) p[i] = vfma(p[i], x[i], vset(c[k]));
    UNROLL for (int i = 0; i < n; i++) x[i] = vscale(p[i], whole[i]);
}

FM_INLINE vf vexp(vf x)
{
    vexp_side(&x, 1);
    return x;
}

/* log(1 + e) for e in [0, 1], as e times a polynomial with error 4.7e-9: e itself for tiny e. */
FM_INLINE void vlog1p_unit(vf *e, int n)
{
    static const float c[] = {0.0198514598f, -0.0569595295f, 0.106036544f,  -0.153055923f, 0.196759392f,
                              -0.249541336f, 0.333299624f,   -0.499999024f, 1.0f};
    vf p[VSIDE];
    UNROLL for (int i = 0; i < n; i++) p[i] = vset(-0.00324402461f);
    UNROLL for (size_t k = 0; k < FM_COUNT(c); k++) UNROLL for (int i = 0; i < n; i++) p[i] = vfma(p[i], e[i], vset(c[k]));
    UNROLL for (int i = 0; i < n; i++) e[i] = vmul(p[i], e[i]);
}

/* log(1 + e^v) = max(v, 0) + log(1 + e^-|v|).  Above 20 the second term is under half an ulp of v, so the cut that the
 * specification makes there needs no branch. */
FM_INLINE void vsoftplus_side(vf *v, int n)
{
    vf e[VSIDE];
    UNROLL for (int i = 0; i < n; i++) e[i] = vsub(vset(0.0f), vabs(v[i]));
    vexp_side(e, n);
    vlog1p_unit(e, n);
    UNROLL for (int i = 0; i < n; i++) v[i] = vadd(vmax(vset(0.0f), v[i]), e[i]);
}

FM_INLINE vf vsoftplus(vf v)
{
    vsoftplus_side(&v, 1);
    return v;
}

FM_INLINE void vsilu_side(vf *v, int n)
{
    vf e[VSIDE];
    UNROLL for (int i = 0; i < n; i++) e[i] = vsub(vset(0.0f), v[i]);
    vexp_side(e, n);
    UNROLL for (int i = 0; i < n; i++) v[i] = vdiv(v[i], vadd(vset(1.0f), e[i]));
}

FM_INLINE vf vsilu(vf v)
{
    vsilu_side(&v, 1);
    return v;
}

#endif
