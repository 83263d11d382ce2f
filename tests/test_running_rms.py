import torch

from neuralsim.running_rms import RunningRMS


def test_gradient_is_the_raw_gradient_over_the_rms():  # check 8
    scale = RunningRMS()
    for value in (4.0, 4.0):
        scale(torch.tensor(value))
    x = torch.tensor(2.0, requires_grad=True)
    scaled = scale.eval()(x**2)
    scaled.backward()
    torch.testing.assert_close(scaled.detach(), torch.tensor(1.0))
    torch.testing.assert_close(x.grad, torch.tensor(2 * 2.0 / 4.0))


def test_eval_is_frozen_and_state_is_saved():  # check 8
    scale = RunningRMS()
    scale(torch.tensor(3.0))
    scale.eval()
    scale(torch.tensor(100.0))
    other = RunningRMS()
    other.load_state_dict(scale.state_dict())
    torch.testing.assert_close(other.eval()(torch.tensor(6.0)), torch.tensor(2.0))


def test_terms_without_gradients_leave_no_trace():
    scale = RunningRMS()
    scale(torch.tensor(2.0))
    with torch.no_grad():
        scale(torch.tensor(100.0))
    torch.testing.assert_close(scale.eval()(torch.tensor(2.0)), torch.tensor(1.0))


def test_not_finite_terms_leave_no_trace():
    scale = RunningRMS()
    scale(torch.tensor(2.0))
    scale(torch.tensor(float("nan")))
    torch.testing.assert_close(scale.eval()(torch.tensor(2.0)), torch.tensor(1.0))
