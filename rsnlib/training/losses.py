"""The training loss: intermediate supervision of every head, hard keypoint mining in the finest."""

HARD_KEYPOINTS = 8


def heatmap_loss(heads, targets, visible, hard_keypoints=HARD_KEYPOINTS):
    """Loss of a batch (released RSN, RSN._calculate_loss and JointsL2Loss), a scalar in float32.

    heads: (N, stages, 4, K, h, w), coarse to fine
    targets: (N, 5, K, h, w), wide to narrow; head j learns target j, in the last stage j + 1
    visible: (N, K), 2 visible, 1 labelled but hidden, 0 not labelled
    hard_keypoints: as for `finest_loss`

    Heads 0 to 2: squared error over all keypoints, targets of keypoints that are not visible set to zero, weight 1/4.
    Head 3: `finest_loss`, hard keypoint mining. Summed over heads and stages, averaged over people.
    """
    stages = heads.unbind(1)
    fully_visible = (visible > 1)[:, None, :, None, None]
    loss = 0.0
    for number, stage in enumerate(stages, start=1):
        wanted = targets[:, 1:] if number == len(stages) else targets[:, :4]
        coarse = (stage[:, :3].float() - wanted[:, :3] * fully_visible).square().mean(dim=(2, 3, 4)).sum(dim=1)
        finest = finest_loss(stage[:, 3], wanted[:, 3], visible, hard_keypoints)
        loss = loss + (coarse / 4 + finest).mean()
    return loss


def finest_loss(heatmaps, target, visible, hard_keypoints=HARD_KEYPOINTS):
    """Loss of the finest head, per person (N,): the mean over the worst keypoints. Unlabelled keypoints have no error.

    heatmaps, target: (N, K, h, w); visible: (N, K)
    hard_keypoints: how many; None: every one. The mean is then over K, as in the other heads, so that no labelled
        keypoint of anyone counts more than another. (The released code's switch, LOSS.OHKM, changes a second thing: the
        finest head learns hidden keypoints as empty heatmaps, too.)
    """
    keypoints = visible.shape[1]
    errors = (heatmaps.float() - target).square().mean(dim=(2, 3)) * (visible > 0).float()  # (N, K)
    return errors.topk(min(hard_keypoints or keypoints, keypoints), dim=1).values.mean(dim=1)
