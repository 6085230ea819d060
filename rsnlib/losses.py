"""The training loss: intermediate supervision of every head, hard keypoint mining in the finest."""

HARD_KEYPOINTS = 8


def heatmap_loss(heads, targets, visible):
    """The loss of a batch (released RSN, RSN._calculate_loss and JointsL2Loss), a scalar in float32.

    heads: (N, stages, 4, K, h, w), coarse to fine
    targets: (N, 5, K, h, w), wide to narrow; head j learns target j, in the last stage j + 1
    visible: (N, K), 2 visible, 1 labelled but hidden, 0 not labelled

    Heads 0 to 2 learn every keypoint, those not visible as an empty heatmap; the finest head learns the labelled ones,
    the mean of the HARD_KEYPOINTS worst a person. The first three count a quarter.
    """
    stages = heads.shape[1]
    fully_visible = (visible > 1)[:, None, :, None, None]
    labelled = (visible > 0).float()
    hard = min(HARD_KEYPOINTS, visible.shape[1])
    loss = 0.0
    for stage in range(stages):
        wanted = targets[:, 1:] if stage == stages - 1 else targets[:, :4]
        coarse = (heads[:, stage, :3].float() - wanted[:, :3] * fully_visible).square().mean(dim=(1, 2, 3, 4)) * 3
        fine = (heads[:, stage, 3].float() - wanted[:, 3]).square().mean(dim=(2, 3)) * labelled  # (N, K)
        worst = fine.topk(hard, dim=1).values.mean(dim=1)
        loss = loss + (coarse / 4 + worst).mean()
    return loss
